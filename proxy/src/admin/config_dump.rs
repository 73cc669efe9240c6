//! `/config_dump`. What the sections look like is the model's matter; here is the query.
use http::StatusCode;
use outrigger_model::dump::{DumpOptions, RenderError};

use super::AdminView;
use super::answer::Answer;
use super::endpoint::{Later, Param, ParamKind};
use super::query::Query;

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "resource",
        help: "The resource to dump",
        kind: ParamKind::Text,
    },
    Param {
        name: "mask",
        help: "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired \
               repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
        kind: ParamKind::Text,
    },
    Param {
        name: "name_regex",
        help: "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource \
               and mask query parameters.",
        kind: ParamKind::Text,
    },
    Param {
        name: "include_eds",
        help: "Dump currently loaded configuration including EDS. See the response definition for more information",
        kind: ParamKind::Flag,
    },
];

/// `/config_dump`.
pub(super) fn answer(view: &dyn AdminView, query: &Query) -> Result<Later, Answer> {
    let options = options(query);
    let dump = view.config_dump();
    Ok(Box::new(move |pieces| {
        let descriptors = match dump.descriptors() {
            Ok(descriptors) => descriptors,
            Err(error) => return Answer::internal(error.to_string()),
        };
        dump.render_to(&descriptors, &options, &mut |piece| pieces.send(piece))
            .map_or_else(|error| refusal(&error), Answer::json)
    }))
}

fn options(query: &Query) -> DumpOptions {
    DumpOptions {
        include_eds: query.is_set("include_eds"),
        resource: query.text("resource").map(str::to_owned),
        mask: query
            .text("mask")
            .map(|mask| mask.split(',').map(str::to_owned).collect()),
        name_regex: query.text("name_regex").map(str::to_owned),
    }
}

/// Without a charset, unlike everything else here: so does Envoy.
fn refusal(error: &RenderError) -> Answer {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    Answer {
        status,
        content_type: "text/plain",
        body: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn include_eds_needs_no_value_and_masks_are_split() {
        let options = options(&Query::parse(
            "include_eds&mask=dynamic_listeners,static_listeners&resource=",
        ));
        assert!(options.include_eds);
        assert_eq!(
            options.mask,
            Some(vec![
                "dynamic_listeners".to_owned(),
                "static_listeners".to_owned()
            ])
        );
        assert_eq!((options.resource, options.name_regex), (None, None));
    }
}
