//! Outputs cut into parts that do not overlap, so that several threads may write them, each part by one.
//!
//! Knows no threads: `team` hands each part out once.

use std::marker::PhantomData;
use std::ops::Range;

/// Something cut into parts that do not overlap.
pub(super) trait Parts: Sync {
    type Part;

    fn count(&self) -> usize;

    /// # Safety
    /// Each index below [`Self::count`] is asked for at most once while the parts are in use.
    #[expect(unsafe_code, reason = "the borrow checker cannot see that each part is taken once")]
    unsafe fn part(&self, index: usize) -> Self::Part;
}

/// A slice in pieces of one length; the last may be shorter.
pub(super) struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    size: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> Chunks<'a, T> {
    pub(super) fn new(data: &'a mut [T], size: usize) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), size: size.max(1), borrow: PhantomData }
    }
}

#[expect(unsafe_code, reason = "a slice may be written from several threads, each part by one")]
// SAFETY: shared between threads it gives access to parts that do not overlap, as a `&mut [T]` split would.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T: Send> Parts for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }

    #[expect(unsafe_code, reason = "as the trait says")]
    unsafe fn part(&self, index: usize) -> &'a mut [T] {
        let start = index * self.size;
        assert!(start < self.len, "there is no part {index}");
        // SAFETY: inside the slice, and no other part overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), self.size.min(self.len - start)) }
    }
}

/// Some rows and some columns of a matrix.
pub(super) type Area = (Range<usize>, Range<usize>);

/// A matrix `[rows, width]` in tiles: some rows, some columns.
pub(super) struct Tiles<'a> {
    data: *mut f32,
    len: usize,
    width: usize,
    tiles: &'a [Area],
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> Tiles<'a> {
    /// # Panics
    /// If a tile does not lie inside the matrix, or tiles overlap.
    pub(super) fn new(data: &'a mut [f32], width: usize, tiles: &'a [Area]) -> Self {
        let rows = data.len() / width.max(1);
        let inside = |(r, c): &Area| r.end <= rows && c.end <= width;
        assert!(tiles.iter().all(inside), "a tile lies outside of its matrix");
        assert!(tiles.windows(2).all(|pair| is_before(&pair[0], &pair[1])), "tiles are not in order");
        Self { data: data.as_mut_ptr(), len: data.len(), width, tiles, borrow: PhantomData }
    }
}

/// In order: bands of rows one after the other, in each the columns from left to right.
fn is_before(a: &Area, b: &Area) -> bool {
    a.0.end <= b.0.start || (a.0 == b.0 && a.1.end <= b.1.start)
}

#[expect(unsafe_code, reason = "a matrix may be written from several threads, each tile by one")]
// SAFETY: shared between threads it gives access to tiles that do not overlap.
unsafe impl Sync for Tiles<'_> {}

impl<'a> Parts for Tiles<'a> {
    type Part = Tile<'a>;

    fn count(&self) -> usize {
        self.tiles.len()
    }

    #[expect(unsafe_code, reason = "as the trait says")]
    unsafe fn part(&self, index: usize) -> Tile<'a> {
        let (rows, columns) = self.tiles[index].clone();
        Tile { data: self.data, len: self.len, width: self.width, rows, columns, borrow: PhantomData }
    }
}

/// Some rows and columns of a matrix, to be written.
pub(super) struct Tile<'a> {
    data: *mut f32,
    len: usize,
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> Tile<'a> {
    /// The whole of a matrix.
    pub(super) fn whole(data: &'a mut [f32], width: usize) -> Self {
        let rows = 0..data.len() / width.max(1);
        Self { data: data.as_mut_ptr(), len: data.len(), width, rows, columns: 0..width, borrow: PhantomData }
    }

    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    pub(super) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The tile's columns of a row, which is counted from the matrix's first.
    #[inline(always)]
    #[expect(unsafe_code, reason = "rows of a tile are not contiguous")]
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(self.rows.contains(&row), "row {row} is not in this tile");
        let start = row * self.width + self.columns.start;
        debug_assert!(start + self.columns.len() <= self.len);
        // SAFETY: inside the matrix (checked when the tiles were cut), and no other tile overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), self.columns.len()) }
    }
}

impl<A: Parts, B: Parts> Parts for (A, B) {
    type Part = (A::Part, B::Part);

    fn count(&self) -> usize {
        self.0.count().min(self.1.count())
    }

    #[expect(unsafe_code, reason = "as the trait says")]
    unsafe fn part(&self, index: usize) -> Self::Part {
        // SAFETY: as of the pair.
        unsafe { (self.0.part(index), self.1.part(index)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::team::Team;
    use super::*;

    const MUCH: usize = usize::MAX;

    #[test]
    fn tiles_cover_a_matrix_without_touching_each_other() {
        let team = Team::new(3);
        let mut matrix = vec![0.0; 6 * 10];
        let cut = [(0..4, 0..3), (0..4, 3..10), (4..6, 0..10)];
        team.each(MUCH, Tiles::new(&mut matrix, 10, &cut), |index, mut tile| {
            for row in tile.rows() {
                tile.row(row).iter_mut().for_each(|value| *value += (index + 1) as f32);
            }
        });
        let expected = |i: usize| {
            if i / 10 >= 4 {
                3.0
            } else if i % 10 < 3 {
                1.0
            } else {
                2.0
            }
        };
        assert!(matrix.iter().enumerate().all(|(i, value)| *value == expected(i)), "{matrix:?}");
    }

    #[test]
    #[should_panic(expected = "tiles are not in order")]
    fn overlapping_tiles_are_refused() {
        Tiles::new(&mut [0.0; 60], 10, &[(0..4, 0..3), (0..4, 2..10)]);
    }
}
