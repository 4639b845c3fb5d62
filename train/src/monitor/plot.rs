//! Curves as an SVG image. Text and grid are black here; the page that shows the image gives them its own colour.

use super::axis::{Axis, Scale};
use super::curves::Point;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, DrawingAreaErrorKind, IntoDrawingArea, IntoFont, LineSeries, RGBColor,
    SVGBackend,
};
use std::io;

/// Width and height, which also set how large text is beside the curves.
const SIZE: (u32, u32) = (640, 300);
const TEXT: u32 = 15;
/// A curve of so few points shows each of them.
const FEW: usize = 40;

/// Why an image could not be drawn.
pub(super) type PlotError = DrawingAreaErrorKind<io::Error>;

/// A curve and its colour (red, green, blue).
pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    pub(super) colour: (u8, u8, u8),
}

/// Draws curves over the steps into one image.
pub(super) fn svg(curves: &[Curve], scale: Scale) -> Result<String, PlotError> {
    let mut image = String::new();
    let axis = Axis::over(curves.iter().map(|curve| curve.points.as_slice()), scale);
    draw(curves, axis, SVGBackend::with_string(&mut image, SIZE))?;
    Ok(image)
}

fn draw(curves: &[Curve], axis: Axis, backend: SVGBackend<'_>) -> Result<(), PlotError> {
    let [low, high] = axis.bounds;
    let last = curves.iter().flat_map(|curve| &curve.points).fold(1.0, |last: f64, point| last.max(point.0));
    let root = backend.into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(TEXT + 6)
        .y_label_area_size(4 * TEXT)
        .build_cartesian_2d(0.0..last, low..high)?;
    chart
        .configure_mesh()
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(BLACK.mix(0.0))
        .axis_style(BLACK.mix(0.4))
        .label_style(("sans-serif", TEXT).into_font())
        .x_label_formatter(&|step| format!("{step}"))
        .y_label_formatter(&|&place| axis.label(place))
        .draw()?;
    for curve in curves {
        let (red, green, blue) = curve.colour;
        let (colour, points) = (RGBColor(red, green, blue), || curve.points.iter().map(|&point| axis.place(point)));
        chart.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
        if curve.points.len() <= FEW {
            chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
    }
    root.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[Point]) -> Curve {
        Curve { points: points.to_vec(), colour: (31, 119, 180) }
    }

    fn count(image: &str, name: &str, attribute: (&str, &str)) -> usize {
        let document = roxmltree::Document::parse(image).unwrap();
        let nodes = document.descendants().filter(|node| node.tag_name().name() == name);
        nodes.filter(|node| node.attribute(attribute.0) == Some(attribute.1)).count()
    }

    #[test]
    fn an_image_is_sound_and_holds_a_line_for_each_curve() {
        let points: Vec<Point> = (1..=100).map(|n| (f64::from(n), 100.0 / f64::from(n))).collect();
        let image = svg(&[curve(&points), curve(&[(10.0, 2.0), (20.0, 1.0)])], Scale::ByRange).unwrap();
        assert_eq!(count(&image, "polyline", ("stroke", "#1F77B4")), 2);
        assert_eq!(count(&image, "circle", ("fill", "#1F77B4")), 2);
    }

    #[test]
    fn a_single_point_and_no_point_are_images_too() {
        assert_eq!(count(&svg(&[curve(&[(1.0, 0.0)])], Scale::Linear).unwrap(), "circle", ("fill", "#1F77B4")), 1);
        roxmltree::Document::parse(&svg(&[curve(&[])], Scale::ByRange).unwrap()).unwrap();
    }
}
