//! A flag that Istio's program does not have: `--explain`.
//!
//! A flag only, without a variable, so that none that happens to be set can change what is done.

use super::ConfigError;
use super::setting::Setting;
use crate::explain::{Owner, Question, question};
use crate::flags::Flags;

/// One connection to explain, and whose it is if it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explain {
    pub question: Question,
    pub owner: Owner,
}

/// `--explain`, with `--uid` (default 0) and `--gid` (default the same number).
pub(super) fn explain(flags: &Flags) -> Result<Option<Explain>, ConfigError> {
    let id = |name, given: &Option<String>| {
        let setting = given.as_ref().map(|text| Setting::new(name, text));
        setting.map(|setting| setting.one(number)).transpose()
    };
    let (uid, gid) = (id("--uid", &flags.uid)?, id("--gid", &flags.gid)?);
    let Some(about) = &flags.explain else {
        return match flags
            .uid
            .as_ref()
            .map(|uid| ("--uid", uid))
            .or(flags.gid.as_ref().map(|gid| ("--gid", gid)))
        {
            Some((name, value)) => Err(Setting::new(name, value).bad("means nothing without --explain")),
            None => Ok(None),
        };
    };
    let question = Setting::new("--explain", about).one(question::parse)?;
    let uid = uid.unwrap_or(0);
    let owner = Owner {
        uid,
        gid: gid.unwrap_or(uid),
    };
    Ok(Some(Explain { question, owner }))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "not a user or group number".to_owned())
}
