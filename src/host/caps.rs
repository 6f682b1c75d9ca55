// SPDX-License-Identifier: Apache-2.0
//! Capabilities of this process: what is not needed is given up for good.

use std::io;

use rustix::{
    io::Errno,
    thread::{
        self, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    },
};

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Permitted: what may be used, or handed on to what is started.
    pub capabilities: CapabilitySet,
    /// Wanted, and not there to be kept.
    pub missing: CapabilitySet,
    /// Others are in the bounding set, where they are of no use: with no_new_privs no
    /// program that is started gains a capability.
    pub bounding_stays: bool,
}

/// Whether the calling thread may use all of these. In a user namespace it has them over
/// what belongs to that alone.
pub fn has(wanted: CapabilitySet) -> io::Result<bool> {
    Ok(capabilities(None)?.effective.contains(wanted))
}

/// Leaves the calling thread these capabilities at most, in every set, and lets neither
/// it nor what it starts ever gain another one (no_new_privs). Effective are those alone
/// that it uses itself.
pub fn keep(wanted: CapabilitySet, used: CapabilitySet) -> io::Result<Kept> {
    clear_ambient_capability_set()?;
    let mut bounding_stays = false;
    for capability in bounding()?.difference(wanted).iter_single() {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // It needs CAP_SETPCAP.
            Err(Errno::PERM) => bounding_stays = true,
            Err(e) => return Err(e.into()),
        }
    }
    let had = capabilities(None)?.permitted;
    let left = had.intersection(wanted);
    let sets = CapabilitySets {
        effective: left.intersection(used),
        permitted: left,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    thread::set_no_new_privs(true)?;
    if capabilities(None)? != sets || !thread::no_new_privs()? {
        return Err(io::Error::other(
            "the kernel shows other capabilities than those that were kept",
        ));
    }
    Ok(Kept {
        capabilities: left,
        missing: wanted.difference(had),
        bounding_stays,
    })
}

/// The bounding set.
fn bounding() -> io::Result<CapabilitySet> {
    let mut found = CapabilitySet::empty();
    for capability in CapabilitySet::from_bits_retain(u64::MAX).iter_single() {
        match capability_is_in_bounding_set(capability) {
            Ok(true) => found |= capability,
            Ok(false) => {}
            // Newer than the kernel, as are all that follow.
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

trait Single {
    fn iter_single(self) -> impl Iterator<Item = CapabilitySet>;
}

impl Single for CapabilitySet {
    /// One by one, also those without a name.
    fn iter_single(self) -> impl Iterator<Item = CapabilitySet> {
        (0..u64::BITS)
            .map(|n| CapabilitySet::from_bits_retain(1 << n))
            .filter(move |one| self.intersects(*one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what it gives up is its alone.
    fn in_a_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| s.spawn(body).join().unwrap())
    }

    #[test]
    fn nothing_stays_where_nothing_is_wanted() {
        let before = capabilities(None).unwrap();
        in_a_thread(|| {
            let kept = keep(CapabilitySet::empty(), CapabilitySet::empty()).unwrap();
            assert_eq!(kept.capabilities, CapabilitySet::empty());
            assert_eq!(kept.missing, CapabilitySet::empty());
            assert!(kept.bounding_stays || bounding().unwrap().is_empty());
            let now = capabilities(None).unwrap();
            assert!(now.permitted.is_empty() && now.effective.is_empty());
            assert!(now.inheritable.is_empty());
            assert!(thread::no_new_privs().unwrap());
            // Once given up it is never back.
            let again = keep(CapabilitySet::CHOWN, CapabilitySet::CHOWN).unwrap();
            assert_eq!(again.missing, CapabilitySet::CHOWN);
        });
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn what_is_wanted_and_there_stays_and_nothing_else() {
        let had = capabilities(None).unwrap().permitted;
        let wanted = CapabilitySet::CHOWN | CapabilitySet::SYS_PTRACE;
        in_a_thread(|| {
            let kept = keep(wanted, CapabilitySet::CHOWN).unwrap();
            assert_eq!(kept.capabilities, had & wanted);
            let now = capabilities(None).unwrap();
            assert_eq!(now.effective, had & CapabilitySet::CHOWN);
            assert_eq!(kept.missing, wanted - had);
            assert!(kept.bounding_stays || wanted.contains(bounding().unwrap()));
        });
    }
}
