// SPDX-License-Identifier: Apache-2.0
//! What can happen to one volume, worked out once.
//!
//! Two volumes meet in their actor alone. What happens to one therefore hangs on
//! itself, on what both see, and on the little that its actor sees of the other
//! ([`Local::seen`]). It is worked out by the functions themselves, with the
//! other volume that happens to be there, and taken from here afterwards: most
//! of the many pairs need no more than to be looked up. Where an answer moves
//! the actor on, and with it the other volume, the pair itself is worked out.
//! Both volumes must lead to the same actor, and of every few hundred pairs one
//! is compared with what the functions say.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{Arc, RwLock},
};

use super::{
    code::{Code, Context, Local},
    op::{Budget, Op},
    sim::Sim,
    world::Broken,
};

/// Numbers of what both see and of the two volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    pub context: u32,
    pub volumes: [u32; 2],
}

impl Pair {
    pub fn key(self) -> u128 {
        let [one, two] = self.volumes.map(u128::from);
        u128::from(self.context) << 64 | one << 32 | two
    }

    pub fn of_key(key: u128) -> Self {
        Self {
            context: (key >> 64) as u32,
            volumes: [(key >> 32) as u32, key as u32],
        }
    }
}

/// Numbers are mixed well enough by two multiplications.
#[derive(Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_u128(&mut self, n: u128) {
        let folded = (n as u64) ^ ((n >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = folded.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ mixed >> 31;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type Map<V> = HashMap<u128, V, BuildHasherDefault<Mixed>>;

/// What is numbered as it comes, and the number of it with the nodes swapped.
struct Numbered<T> {
    numbers: HashMap<T, u32>,
    all: Vec<(T, u32)>,
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self {
            numbers: HashMap::new(),
            all: Vec::new(),
        }
    }

    fn number(&mut self, it: T, swap: fn(T) -> T) -> u32 {
        if let Some(number) = self.numbers.get(&it) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.numbers.insert(it, number);
        self.all.push((it, number));
        let other = swap(it);
        if other != it {
            let other = self.number(other, swap);
            self.all[number as usize].1 = other;
        }
        number
    }
}

/// What comes of an event: what both see, and the volume.
type Outcome = Result<(u32, u32), Broken>;

/// Events of one volume or of both, in the same order for every other volume.
struct Row {
    moves: Vec<(Op, Outcome)>,
    /// Nothing is under way and nothing can be sent.
    rests: bool,
}

struct Inner {
    contexts: Numbered<Context>,
    locals: Numbered<Local>,
    alone: Map<Arc<Row>>,
    together: Map<Arc<Row>>,
}

pub struct Table<'a> {
    like: &'a Sim,
    inner: RwLock<Inner>,
}

/// Nothing is beyond it; what can be paid is seen to by the search.
const ALL: Budget = Budget {
    verbs: u32::MAX,
    deaths: u32::MAX,
    lost: u32::MAX,
    nodes: u32::MAX,
};

/// One of so many states is compared with the functions.
const COMPARED: u64 = 256;

impl<'a> Table<'a> {
    pub fn new(like: &'a Sim) -> Self {
        Self {
            like,
            inner: RwLock::new(Inner {
                contexts: Numbered::new(),
                locals: Numbered::new(),
                alone: Map::default(),
                together: Map::default(),
            }),
        }
    }

    fn plain(&self, sim: &Sim) -> Pair {
        let code = Code::plain(sim);
        let mut inner = self.inner.write().expect("nobody panics with it");
        Pair {
            context: inner.contexts.number(code.context, Context::nodes_swapped),
            volumes: code
                .volumes
                .map(|v| inner.locals.number(v, Local::nodes_swapped)),
        }
    }

    /// The one of the four pairs that differ in names only which stands for all.
    fn least(inner: &Inner, pair: Pair) -> Pair {
        let sorted = |context, [one, two]: [u32; 2]| Pair {
            context,
            volumes: if one <= two { [one, two] } else { [two, one] },
        };
        let other = |v: u32| inner.locals.all[v as usize].1;
        let swapped = inner.contexts.all[pair.context as usize].1;
        let [one, two] = pair.volumes;
        sorted(pair.context, pair.volumes).min(sorted(swapped, [other(one), other(two)]))
    }

    pub fn pair(&self, sim: &Sim) -> Pair {
        let pair = self.plain(sim);
        Self::least(&self.inner.read().expect("nobody panics with it"), pair)
    }

    pub fn code(&self, pair: Pair) -> Code {
        let inner = self.inner.read().expect("nobody panics with it");
        Code {
            context: inner.contexts.all[pair.context as usize].0,
            volumes: pair.volumes.map(|v| inner.locals.all[v as usize].0),
        }
    }

    fn row(&self, pair: Pair, code: &Code, v: usize, alone: bool) -> Arc<Row> {
        let seen = code.volumes[1 - v].seen(code.context.phase());
        let seen = if alone { seen.alone } else { seen.together };
        let key = Pair {
            context: pair.context,
            volumes: [pair.volumes[v], seen],
        };
        let inner = self.inner.read().expect("nobody panics with it");
        let rows = if alone { &inner.alone } else { &inner.together };
        if let Some(row) = rows.get(&key.key()) {
            return row.clone();
        }
        drop(inner);
        let sim = code.expand(ALL, self.like);
        let ops = sim.ops().into_iter();
        let ops = ops.filter(|op| match op.volume() {
            Some(of) => alone && of == v,
            None => !alone,
        });
        let moves = ops.map(|op| {
            let mut next = sim.clone();
            let done = next.act(op);
            let outcome = done.map(|()| {
                let next = self.plain(&next);
                (next.context, next.volumes[v])
            });
            (op.of_first(), outcome)
        });
        let row = Arc::new(Row {
            moves: moves.collect(),
            rests: sim.rests(v),
        });
        let mut inner = self.inner.write().expect("nobody panics with it");
        let rows = if alone {
            &mut inner.alone
        } else {
            &mut inner.together
        };
        rows.insert(key.key(), row.clone());
        row
    }

    /// Whatever can happen next, whatever it costs. What is left when nothing
    /// more happens is judged here.
    pub fn next(&self, pair: Pair) -> Result<Vec<(Op, Result<Pair, Broken>)>, Broken> {
        let code = self.code(pair);
        let alone = [0, 1].map(|v| self.row(pair, &code, v, true));
        let together = [0, 1].map(|v| self.row(pair, &code, v, false));
        if alone[0].rests && alone[1].rests {
            code.expand(ALL, self.like).check_rest()?;
        }
        let mut found = Vec::with_capacity(24);
        for (one, two) in together[0].moves.iter().zip(&together[1].moves) {
            assert_eq!(one.0, two.0, "of both: {code:?}");
            found.push((
                one.0,
                match (one.1, two.1) {
                    (Ok(one), Ok(two)) => {
                        assert_eq!(one.0, two.0, "more is seen of a volume: {code:?}");
                        Ok(Pair {
                            context: one.0,
                            volumes: [one.1, two.1],
                        })
                    }
                    (Err(broken), _) | (_, Err(broken)) => Err(broken),
                },
            ));
        }
        for v in 0..2 {
            for (op, outcome) in &alone[v].moves {
                let op = if v == 0 { *op } else { op.of_second() };
                found.push((
                    op,
                    match *outcome {
                        Ok((context, volume)) if context == pair.context => {
                            let mut volumes = pair.volumes;
                            volumes[v] = volume;
                            Ok(Pair { context, volumes })
                        }
                        Err(broken) => Err(broken),
                        Ok(_) => self.work_out(&code, op),
                    },
                ));
            }
        }
        if (pair.key() as u64 ^ pair.key() as u64 >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            % COMPARED
            == 0
        {
            self.compare(&code, &found);
        }
        let inner = self.inner.read().expect("nobody panics with it");
        for (_, outcome) in &mut found {
            *outcome = outcome.map(|pair| Self::least(&inner, pair));
        }
        Ok(found)
    }

    fn work_out(&self, code: &Code, op: Op) -> Result<Pair, Broken> {
        let mut next = code.expand(ALL, self.like);
        next.act(op)?;
        Ok(self.plain(&next))
    }

    fn compare(&self, code: &Code, found: &[(Op, Result<Pair, Broken>)]) {
        let ops = code.expand(ALL, self.like).ops();
        assert_eq!(ops.len(), found.len(), "{code:?}");
        for (op, outcome) in found {
            assert!(ops.contains(op), "{op:?} of {code:?}");
            assert_eq!(*outcome, self.work_out(code, *op), "{op:?} of {code:?}");
        }
    }
}
