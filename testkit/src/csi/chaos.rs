// SPDX-License-Identifier: Apache-2.0
//! Faults at random: the same for the same seed and order of calls.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use serde::Deserialize;
use tonic::Code;

use super::Fault;

/// Faults at random, in so many of a hundred calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chaos {
    /// Decides, with the number of the call, what happens to it.
    pub seed: u64,
    /// How many of a hundred calls meet a fault.
    pub percent: u8,
}

impl Chaos {
    /// What happens to the call of this number: it is late, fails before it is
    /// carried out, is carried out and not answered, or meets ABORTED.
    pub fn pick(self, call: u64) -> Fault {
        let mut hasher = DefaultHasher::new();
        (self.seed, call).hash(&mut hasher);
        let random = hasher.finish();
        if random % 100 >= u64::from(self.percent) {
            return Fault::default();
        }
        let more = random / 100;
        match more % 4 {
            0 => Fault::delay(Duration::from_millis(1 + more / 4 % 50)),
            1 => {
                let codes = [Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable];
                let index = usize::try_from(more / 4 % 3).expect("it is below 3");
                Fault::fail(codes[index])
            }
            2 => Fault::lose_answer(),
            _ => Fault::fail(Code::Aborted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(chaos: Chaos) -> Vec<Fault> {
        (0..1000).map(|call| chaos.pick(call)).collect()
    }

    #[test]
    fn the_same_seed_brings_the_same_faults_and_another_brings_others() {
        let at = |seed| faults(Chaos { seed, percent: 50 });
        assert_eq!(at(7), at(7));
        assert_ne!(at(7), at(8));
    }

    #[test]
    fn as_many_calls_fail_as_was_said_and_in_every_way() {
        let count = |percent| {
            let all = faults(Chaos { seed: 3, percent });
            all.iter().filter(|f| **f != Fault::default()).count()
        };
        assert_eq!((count(0), count(100)), (0, 1000));
        let some = count(30);
        assert!((200..400).contains(&some), "{some}");
        let all = faults(Chaos {
            seed: 3,
            percent: 100,
        });
        assert!(all.iter().any(|f| !f.delay.is_zero()));
        assert!(all.iter().any(|f| f.lose_answer));
        for code in [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::Aborted,
        ] {
            assert!(all.iter().any(|f| f.fail == Some(code)), "{code:?}");
        }
    }
}
