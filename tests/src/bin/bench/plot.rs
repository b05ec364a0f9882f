//! Draws charts, as SVG and as PNG. The font comes along: no program or file of the system is needed.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::*;
use plotters::style::register_font;

use crate::chart::{Chart, Content, Line};
use crate::subject::Variant;
use crate::summary::Spread;

const SIZE: (u32, u32) = (960, 540);
const FONT: &str = "sans-serif";
/// Colours that also colour-blind people tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(153, 153, 153),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
];

/// Writes both files of each chart.
pub(crate) fn write(charts: &[Chart], folder: &Path) -> Result<()> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_invalid| anyhow!("the font that came along is none"))?;
    for chart in charts {
        let path = folder.join(&chart.name);
        svg(chart, &path.with_extension("svg"))
            .and_then(|()| png(chart, &path.with_extension("png")))
            .with_context(|| format!("draw {}", path.display()))?;
    }
    Ok(())
}

fn svg(chart: &Chart, path: &Path) -> Result<()> {
    let mut text = String::new();
    draw(chart, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area()).map_err(plain)?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn png(chart: &Chart, path: &Path) -> Result<()> {
    let mut pixels = vec![0; 3 * SIZE.0 as usize * SIZE.1 as usize];
    draw(chart, &BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area()).map_err(plain)?;
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

/// Errors of drawing borrow from what is drawn on.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn plain(error: Box<dyn Error + '_>) -> anyhow::Error {
    anyhow!("{error}")
}

type Area<'a, Backend> = DrawingArea<Backend, Shift>;
type Drawn<'a> = Result<(), Box<dyn Error + 'a>>;

fn draw<'a, Backend: DrawingBackend + 'a>(chart: &Chart, area: &Area<'a, Backend>) -> Drawn<'a>
where
    Backend::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    match &chart.content {
        Content::Bars { groups, series } => bars(chart, groups, series, area),
        Content::Lines { horizontal, logarithmic: true, series } => {
            let (left, right) = range(series.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x)));
            let axis = (left.max(0.1)..right.max(left * 1.1)).log_scale();
            lines(chart, horizontal, axis, series, area)
        }
        Content::Lines { horizontal, logarithmic: false, series } => {
            let (_, right) = range(series.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x)));
            lines(chart, horizontal, 0.0..right, series, area)
        }
    }
}

fn lines<'a, Backend, Axis>(
    chart: &Chart,
    horizontal: &str,
    axis: Axis,
    series: &[Line],
    area: &Area<'a, Backend>,
) -> Drawn<'a>
where
    Backend: DrawingBackend + 'a,
    Backend::ErrorType: 'static,
    Axis: AsRangedCoord<Value = f64>,
    Axis::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    Cartesian2d<Axis::CoordDescType, plotters::coord::types::RangedCoordf64>:
        CoordTranslate<From = (f64, f64)>,
{
    let (_, top) = range(series.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| *y)));
    let mut context = builder(chart, area).build_cartesian_2d(axis, 0.0..top * 1.02)?;
    context
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(horizontal)
        .y_desc(&chart.vertical)
        .label_style((FONT, 14))
        .draw()?;
    for (index, (variant, points)) in series.iter().enumerate() {
        let colour = colour(variant, index);
        context
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(variant.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// Each group is one wide on the horizontal axis, its bars fill four fifths of that.
#[expect(clippy::cast_precision_loss, reason = "few groups and few bars")]
fn bars<'a, Backend>(
    chart: &Chart,
    groups: &[String],
    series: &[(Variant, Vec<Option<Spread>>)],
    area: &Area<'a, Backend>,
) -> Drawn<'a>
where
    Backend: DrawingBackend + 'a,
    Backend::ErrorType: 'static,
{
    let highest =
        series.iter().flat_map(|(_, spreads)| spreads.iter().flatten().map(|spread| spread.highest));
    let (_, top) = range(highest);
    let count = groups.len() as f64;
    let mut context = builder(chart, area).build_cartesian_2d(0.0..count, 0.0..top * 1.25)?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_desc(&chart.vertical)
        .label_style((FONT, 14))
        .draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for (index, (variant, spreads)) in series.iter().enumerate() {
        let colour = colour(variant, index);
        let places: Vec<_> = spreads
            .iter()
            .enumerate()
            .filter_map(|(group, spread)| Some((group as f64 + 0.1 + width * index as f64, (*spread)?)))
            .collect();
        context
            .draw_series(places.iter().map(|(left, spread)| {
                let corners = [(left + width * 0.05, 0.0), (left + width * 0.95, spread.median)];
                Rectangle::new(corners, colour.filled())
            }))?
            .label(variant.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        context.draw_series(places.iter().map(|(left, spread)| {
            let middle = left + width / 2.0;
            let whisker = [(middle, spread.lowest), (middle, spread.highest)];
            PathElement::new(whisker, RGBColor(80, 80, 80).stroke_width(2))
        }))?;
    }
    // The axis would show numbers; the names of the groups stand below it.
    let across = area.get_pixel_range().0;
    let step = f64::from(across.end - across.start - 90) / count;
    let style = TextStyle::from((FONT, 13)).pos(plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Center,
        plotters::style::text_anchor::VPos::Bottom,
    ));
    #[expect(clippy::cast_possible_truncation, reason = "a pixel")]
    for (index, group) in groups.iter().enumerate() {
        let x = 80 + (step * (index as f64 + 0.5)) as i32;
        area.draw(&Text::new(group.clone(), (x, i32::try_from(SIZE.1)? - 12), style.clone()))?;
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

fn builder<'a, 'b, Backend: DrawingBackend>(
    chart: &Chart,
    area: &'a DrawingArea<Backend, Shift>,
) -> ChartBuilder<'a, 'b, Backend> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(&chart.title, (FONT, 20)).margin(10).x_label_area_size(40).y_label_area_size(70);
    builder
}

fn colour(variant: &Variant, index: usize) -> RGBColor {
    let place = Variant::BUILT_IN.iter().position(|known| known == variant);
    COLOURS[place.unwrap_or(index) % COLOURS.len()]
}

/// Of nothing, 0 to 1.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.0, 1.0) } else { (low, high.max(f64::MIN_POSITIVE)) }
}
