//! `/help` and the home page, both made from the table.
use std::fmt::Write as _;

use super::AdminView;
use super::answer::Answer;
use super::endpoint::{ENDPOINTS, Endpoint, Param, ParamKind};
use super::query::Query;

/// `/help`.
pub(super) fn answer(_: &dyn AdminView, _: &Query) -> Answer {
    Answer::text(text())
}

/// The list of endpoints, in the form of Envoy's.
pub(super) fn text() -> String {
    let mut out = String::from("admin commands are:\n");
    for endpoint in ENDPOINTS {
        let post = if endpoint.mutates { " (POST)" } else { "" };
        let _infallible = writeln!(out, "  {}{post}: {}", endpoint.path, endpoint.help);
        for Param { name, help, kind } in endpoint.params {
            let choices = match kind {
                ParamKind::OneOf(choices) => format!("; One of ({})", choices.join(", ")),
                ParamKind::Flag | ParamKind::Text => String::new(),
            };
            let _infallible = writeln!(out, "      {name}: {help}{choices}");
        }
    }
    out
}

/// `/`: a form an endpoint.
pub(super) fn home(_: &dyn AdminView, _: &Query) -> Answer {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>outrigger admin</title>\n</head>\n<body>\n\
         <table>\n<thead><tr><th>Command</th><th>Description</th></tr></thead>\n<tbody>\n",
    );
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.path != "/") {
        row(&mut out, endpoint);
    }
    out.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    Answer::html(out)
}

/// The table's texts hold nothing that HTML would read; the only quotes that matter are `'`, inside text.
fn row(out: &mut String, endpoint: &Endpoint) {
    // Relative, so that the page works behind a path of a port-forwarding dashboard.
    let path = endpoint.path.trim_start_matches('/');
    let method = if endpoint.mutates { "post" } else { "get" };
    let _infallible = writeln!(
        out,
        "<tr><td><form action='{path}' method='{method}' id='{path}'><button>{path}</button></form></td><td>{}</td></tr>",
        endpoint.help
    );
    for Param { name, help, kind } in endpoint.params {
        let input = match kind {
            ParamKind::Flag => format!("<input type='checkbox' name='{name}' form='{path}'>"),
            ParamKind::Text => format!("<input type='text' name='{name}' form='{path}'>"),
            ParamKind::OneOf(choices) => {
                let choices: String = choices
                    .iter()
                    .map(|choice| format!("<option>{choice}</option>"))
                    .collect();
                format!("<select name='{name}' form='{path}'>{choices}</select>")
            }
        };
        let _infallible = writeln!(
            out,
            "<tr><td>{input}</td><td><label>{name}: {help}</label></td></tr>"
        );
    }
}
