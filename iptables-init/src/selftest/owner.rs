//! Users and groups that connections can be made as.
//!
//! The owner match looks at the file-system ids of the thread that made the socket, so a thread of its own makes
//! the sockets of one owner. Source: xt_owner.c, setfsuid(2).

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

use crate::config::{Config, OwnerGroups};
use crate::rule::Id;

/// Most proxy uids, gids or groups that are tried of a list.
const MOST: usize = 8;
/// `nobody` first: it owns nothing.
const STRANGERS: [u32; 4] = [65534, 1, 2, 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) struct Owners {
    pub(super) own: Owner,
    pub(super) can_change: bool,
    /// Own or a stranger's first, then one for each id that rules name.
    pub(super) all: Vec<Owner>,
}

pub(super) fn available(config: &Config) -> Owners {
    let own = Owner {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    // A change that the kernel refuses changes nothing, and says nothing.
    let somebody = Owner {
        uid: 65534,
        gid: 65534,
    };
    let can_change =
        std::thread::scope(|scope| scope.spawn(|| become_owner(somebody)).join().unwrap_or(false));
    let all = if can_change {
        owners(config, own)
    } else {
        vec![own]
    };
    Owners { own, can_change, all }
}

/// Makes this thread's new sockets belong to `owner`; whether that worked.
pub(super) fn become_owner(owner: Owner) -> bool {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    setfsgid(gid);
    setfsuid(uid);
    // The previous ids are the answer.
    setfsgid(gid) == gid && setfsuid(uid) == uid
}

fn owners(config: &Config, own: Owner) -> Vec<Owner> {
    let groups = match &config.owner_groups {
        OwnerGroups::AllExcept(groups) | OwnerGroups::Only(groups) => groups,
    };
    let named = |id: u32, ids: &[Id]| ids.iter().any(|known| known.number == id);
    let stranger = |own: u32, ids: &dyn Fn(u32) -> bool| {
        let mut free = std::iter::once(own).chain(STRANGERS).filter(|id| !ids(*id));
        free.next().unwrap_or(own)
    };
    let app = Owner {
        uid: stranger(own.uid, &|id| named(id, &config.proxy_uids)),
        gid: stranger(own.gid, &|id| named(id, &config.proxy_gids) || named(id, groups)),
    };
    let uids = config.proxy_uids.iter().take(MOST).map(|id| Owner {
        uid: id.number,
        ..app
    });
    let gids = config.proxy_gids.iter().take(MOST).map(|id| Owner {
        gid: id.number,
        ..app
    });
    let groups = groups.iter().take(MOST).map(|id| Owner {
        gid: id.number,
        ..app
    });
    let mut all: Vec<Owner> = vec![app];
    for owner in uids.chain(gids).chain(groups) {
        if !all.contains(&owner) {
            all.push(owner);
        }
    }
    all
}
