//! The drawing of docs/performance.svg: a bar a proxy, a group a workload and part.

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::median;
use crate::report::{CPU_TARGET, MEMORY_TARGET_MB, Row, START_TARGET_MS, rows};
use crate::samples::{Run, Sample};

const WIDTH: u32 = 900;
const BAR_HEIGHT: i32 = 16;
const GAP: i32 = 14;
const LEFT: i32 = 200;
/// Room for the figure behind a bar.
const RIGHT: i32 = 170;
const INK: RGBColor = RGBColor(40, 40, 40);

/// One group of bars with the same scale.
struct Group {
    title: String,
    unit: &'static str,
    /// Where the target lies on the scale, if there is one.
    target: Option<f64>,
    bars: Vec<(String, f64, String)>,
}

/// The drawing, as SVG.
///
/// # Errors
/// When it cannot be drawn.
pub fn draw(run: &Run, samples: &dyn Fn(&str) -> Vec<Sample>) -> anyhow::Result<String> {
    let groups = groups(run, samples);
    let heights = groups
        .iter()
        .map(|group| GAP * 2 + 8 + BAR_HEIGHT * i32::try_from(group.bars.len()).unwrap_or(0));
    let height = u32::try_from(heights.sum::<i32>() + GAP * 3)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let fault = |error: DrawingAreaErrorKind<std::io::Error>| anyhow!("draw: {error}");
        area.fill(&WHITE).map_err(fault)?;
        let mut top = GAP;
        for group in &groups {
            top = group.draw(&area, top).map_err(fault)?;
        }
        area.present().map_err(fault)?;
    }
    Ok(svg)
}

fn groups(run: &Run, samples: &dyn Fn(&str) -> Vec<Sample>) -> Vec<Group> {
    let mut groups = Vec::new();
    for cell in &run.cells {
        let rows = rows(&samples(&cell.name));
        let mut sides: Vec<&str> = rows.iter().map(|row| row.side.as_str()).collect();
        sides.dedup();
        for side in sides {
            let of_side: Vec<&Row> = rows.iter().filter(|row| row.side == side).collect();
            let envoy = of_side
                .iter()
                .find(|row| row.proxy == "envoy")
                .map(|row| row.micros.median);
            let has_target = ["hop", "pair", "mesh"].contains(&cell.name.as_str());
            let part = if side == "proxy" {
                String::new()
            } else {
                format!(", {side}")
            };
            groups.push(Group {
                title: format!("{}{part}: CPU a request", cell.title),
                unit: "µs",
                target: envoy.filter(|_| has_target).map(|envoy| envoy * CPU_TARGET),
                bars: of_side.iter().map(|row| bar(row)).collect(),
            });
        }
    }
    let mut settings: Vec<&str> = Vec::new();
    for row in &run.memory {
        if !settings.contains(&row.setting.as_str()) {
            settings.push(&row.setting);
        }
    }
    for setting in settings {
        let of_setting = run.memory.iter().filter(|row| row.setting == setting);
        groups.push(Group {
            title: format!("{setting}: resident at start"),
            unit: "MB",
            target: Some(MEMORY_TARGET_MB),
            bars: of_setting
                .map(|row| (row.proxy.clone(), row.start, String::new()))
                .collect(),
        });
    }
    if !run.startup.is_empty() {
        groups.push(Group {
            title: "exec to first accepted connection".to_owned(),
            unit: "ms",
            target: Some(START_TARGET_MS),
            bars: run
                .startup
                .iter()
                .map(|row| (row.proxy.clone(), median(&row.accept_ms), String::new()))
                .collect(),
        });
    }
    groups
}

fn bar(row: &Row) -> (String, f64, String) {
    let ratio = row
        .of_envoy
        .map_or_else(String::new, |ratio| format!(", {:.2} of Envoy's", ratio.median));
    (row.proxy.clone(), row.micros.median, ratio)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Group {
    /// Returns where the next group begins.
    fn draw(&self, area: &Area<'_>, top: i32) -> Result<i32, DrawingAreaErrorKind<std::io::Error>> {
        let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
        let middle = |style: TextStyle<'static>, side: HPos| style.pos(Pos::new(side, VPos::Center));
        let remark = if self.target.is_some() {
            " (red: the target)"
        } else {
            ""
        };
        area.draw(&Text::new(
            format!("{}{remark}", self.title),
            (GAP, top),
            text(14),
        ))?;
        let first = top + GAP + 8;
        let most = self
            .bars
            .iter()
            .map(|(_, value, _)| *value)
            .fold(self.target.unwrap_or(0.0), f64::max);
        let room = f64::from(i32::try_from(WIDTH).unwrap_or(i32::MAX) - LEFT - RIGHT);
        let place = |value: f64| LEFT + (value / most.max(f64::MIN_POSITIVE) * room).round() as i32;
        let last = first + BAR_HEIGHT * i32::try_from(self.bars.len()).unwrap_or(0);
        if let Some(target) = self.target {
            let line = vec![(place(target), first), (place(target), last)];
            area.draw(&PathElement::new(line, RED.stroke_width(1)))?;
        }
        let mut y = first;
        for (proxy, value, remark) in &self.bars {
            let centre = y + BAR_HEIGHT / 2;
            let corners = [(LEFT, y + 2), (place(*value), y + BAR_HEIGHT - 2)];
            area.draw(&Text::new(
                proxy.clone(),
                (LEFT - 8, centre),
                middle(text(12), HPos::Right),
            ))?;
            area.draw(&Rectangle::new(corners, colour(proxy).filled()))?;
            let label = format!("{value:.1} {}{remark}", self.unit);
            area.draw(&Text::new(
                label,
                (place(*value) + 6, centre),
                middle(text(12), HPos::Left),
            ))?;
            y += BAR_HEIGHT;
        }
        Ok(y + GAP)
    }
}

fn colour(proxy: &str) -> RGBColor {
    match proxy {
        "outrigger" => RGBColor(31, 119, 180),
        "nginx" => RGBColor(120, 170, 120),
        "haproxy" => RGBColor(190, 160, 110),
        _ => RGBColor(160, 160, 170),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::samples::Cell;

    #[test]
    fn each_proxy_has_a_bar_with_its_figure() {
        let sample = |proxy: &str, cpu_ns: u64| Sample {
            pass: 0,
            proxy: proxy.to_owned(),
            side: "proxy".to_owned(),
            requests: 1000,
            seconds: 1.0,
            cpu_ns,
            strangers_percent: 0.0,
        };
        let cell = Cell {
            name: "hop".to_owned(),
            title: "hop".to_owned(),
            ..Cell::default()
        };
        let run = Run {
            cells: vec![cell],
            ..Run::default()
        };
        let samples = vec![sample("outrigger", 9_000_000), sample("envoy", 30_000_000)];
        let svg = draw(&run, &|_| samples.clone()).unwrap();
        for expected in ["<svg", "9.0 µs, 0.30 of Envoy", "30.0 µs", "outrigger"] {
            assert!(svg.contains(expected), "{expected} is missing in {svg}");
        }
    }

    #[test]
    fn nothing_measured_is_an_empty_drawing_and_no_panic() {
        assert!(draw(&Run::default(), &|_| Vec::new()).unwrap().contains("<svg"));
    }
}
