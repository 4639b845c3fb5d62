//! Bars as an SVG image: a histogram, or named counts. Text is black here; the page gives it its own colour.

use plotters::prelude::{
    BLACK, ChartBuilder, Color, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend,
};
use std::io;

/// Width and height, which also set how large text is beside the bars.
const SIZE: (u32, u32) = (640, 260);
const TEXT: u32 = 15;
const COLOUR: RGBColor = RGBColor(31, 119, 180);

/// Why an image could not be drawn.
pub(super) type BarsError = DrawingAreaErrorKind<io::Error>;

/// Draws a bar for each (start, count) of ranges of whole numbers that follow each other, the last of which ends before `end`.
pub(super) fn svg(bins: &[(u64, u64)], end: u64) -> Result<String, BarsError> {
    let mut image = String::new();
    draw(bins, end, SVGBackend::with_string(&mut image, SIZE))?;
    Ok(image)
}

fn draw(bins: &[(u64, u64)], end: u64, backend: SVGBackend<'_>) -> Result<(), BarsError> {
    let highest = bins.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1) as f64;
    let root = backend.into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        // The last label stands out over the end.
        .margin_right(2 * TEXT)
        .x_label_area_size(TEXT + 6)
        .y_label_area_size(4 * TEXT)
        // A bar of one number stands over that number.
        .build_cartesian_2d(-0.5..end.max(1) as f64 - 0.5, 0.0..highest * 1.04)?;
    // Nothing happens one and a half times.
    let is_whole = |value: f64| (value - value.round()).abs() < 1e-6;
    let whole = |value: &f64| if is_whole(*value) { format!("{}", value.round() as i64) } else { String::new() };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(BLACK.mix(0.0))
        .axis_style(BLACK.mix(0.4))
        .label_style(("sans-serif", TEXT).into_font())
        .x_labels(end.clamp(2, 10) as usize)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw()?;
    let ends = bins.iter().skip(1).map(|&(start, _)| start).chain([end]);
    let bar = |(&(start, count), end): (&(u64, u64), u64)| {
        // A gap keeps neighbours apart.
        let gap = (end - start) as f64 * 0.08;
        let (left, right) = (start as f64 - 0.5 + gap, end as f64 - 0.5 - gap);
        Rectangle::new([(left, 0.0), (right, count as f64)], COLOUR.filled())
    };
    chart.draw_series(bins.iter().zip(ends).filter(|((_, count), _)| *count > 0).map(bar))?;
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(image: &str) -> Vec<f64> {
        let document = roxmltree::Document::parse(image).unwrap();
        let rectangles = document.descendants().filter(|node| node.tag_name().name() == "rect");
        let bars = rectangles.filter(|node| node.attribute("fill") == Some("#1F77B4"));
        bars.map(|node| node.attribute("height").unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn every_count_has_a_bar_of_its_height() {
        let heights = bars(&svg(&[(0, 1), (10, 0), (20, 2)], 30).unwrap());
        assert_eq!(heights.len(), 2);
        assert!((heights[1] / heights[0] - 2.0).abs() < 0.05, "{heights:?}");
    }

    #[test]
    fn labels_are_whole_numbers_inside_the_image() {
        for (bins, end) in [(vec![(0, 3), (1, 2), (2, 1)], 3), ((0..200).map(|n| (n, 1)).collect(), 200)] {
            let image = svg(&bins, end).unwrap();
            let document = roxmltree::Document::parse(&image).unwrap();
            let texts = document.descendants().filter(|node| node.tag_name().name() == "text");
            let labels: Vec<_> = texts.map(|node| (node.text().unwrap_or("").trim(), node.attribute("x"))).collect();
            assert!(["0", "1"].iter().all(|wanted| labels.iter().any(|(text, _)| text == wanted)), "{labels:?}");
            for (text, x) in labels {
                let half = text.len() as f64 * f64::from(TEXT) / 3.0;
                assert!(!text.contains('.') && x.unwrap().parse::<f64>().unwrap() + half < f64::from(SIZE.0), "{text}");
            }
        }
    }

    #[test]
    fn no_count_is_an_image_too() {
        assert!(bars(&svg(&[(0, 0)], 1).unwrap()).is_empty());
    }
}
