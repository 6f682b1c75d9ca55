// SPDX-License-Identifier: Apache-2.0
//! The driver and the nodes, as they really are. They judge.

/// What was broken, by the name of the invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// I1: deleted while attached, in use or recorded as attached.
    DeletedInUse,
    /// I2 (and I11, since a pod that lives holds its volume): detached from a
    /// node that has not released it and is not fenced.
    DetachedInUse,
    /// I5: an effect whose intent is not in the records.
    NoIntent,
    /// I5: CreateVolume was sent again with other fields.
    OtherRequest,
    /// I5: the driver holds something else than the records say.
    Leak,
    /// I5: it waits for nothing, and is not done.
    Stuck,
    /// I6: attached to a second node.
    TwoNodes,
    /// I6: a generation was given out twice, or fell.
    SameGeneration,
    /// I6: an older generation was published beside or after a newer one.
    OldGeneration,
    /// I6: two scopes use the volume.
    TwoWriters,
}

pub type Judged<T = ()> = Result<T, Broken>;

/// A node, as it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    Up,
    /// It runs, and nobody reaches it.
    Cut,
    /// It is off, and nobody knows.
    Off,
    /// It is off, and the operator said so.
    Fenced,
}

/// One volume in the driver and on the nodes. Bits of `granted` are generations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Thing {
    /// The request that made it; none: it is not there.
    pub made: Option<u64>,
    pub attached: [bool; 2],
    /// The generation that a pod there uses; 0: none.
    pub held: [u64; 2],
    /// Generations up to this one are refused there, durably.
    pub mark: [u64; 2],
    /// Generations that were granted for that node.
    pub granted: [u64; 2],
    /// The highest of them.
    pub newest: u64,
}

impl Thing {
    /// Grants that are not refused there.
    pub fn open_grants(&self, n: usize) -> u64 {
        self.granted[n] & !((2 << self.mark[n].min(62)) - 1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    pub things: [Thing; 2],
    pub nodes: [Life; 2],
    pub attaches: bool,
}

impl World {
    pub fn new(attaches: bool) -> Self {
        Self {
            things: [Thing::default(); 2],
            nodes: [Life::Up; 2],
            attaches,
        }
    }

    pub fn create(&mut self, v: usize, request: u64) -> Judged {
        let made = self.things[v].made.get_or_insert(request);
        (*made == request).then_some(()).ok_or(Broken::OtherRequest)
    }

    pub fn attach(&mut self, v: usize, n: usize) -> Judged {
        if self.things[v].attached[1 - n] {
            return Err(Broken::TwoNodes);
        }
        self.things[v].attached[n] = true;
        Ok(())
    }

    pub fn detach(&mut self, v: usize, n: usize) -> Judged {
        if self.things[v].held[n] != 0 {
            return Err(Broken::DetachedInUse);
        }
        self.things[v].attached[n] = false;
        Ok(())
    }

    pub fn delete(&mut self, v: usize) -> Judged {
        let thing = &mut self.things[v];
        if thing.attached != [false; 2] || thing.held != [0; 2] {
            return Err(Broken::DeletedInUse);
        }
        // It is never made again; what was granted is without use.
        thing.made = None;
        thing.granted = [0; 2];
        thing.mark = [0; 2];
        thing.newest = 0;
        Ok(())
    }

    /// A resume gives a generation out.
    pub fn grant(&mut self, v: usize, n: usize, generation: u64) -> Judged {
        let thing = &mut self.things[v];
        if generation <= thing.newest {
            return Err(Broken::SameGeneration);
        }
        thing.newest = generation;
        thing.granted[n] |= 1 << generation;
        Ok(())
    }

    /// Generations with which a pod could start on that node now.
    pub fn may_publish(&self, v: usize, n: usize) -> impl Iterator<Item = u64> + use<> {
        let thing = self.things[v];
        let runs = matches!(self.nodes[n], Life::Up | Life::Cut);
        let there = thing.made.is_some() && (thing.attached[n] || !self.attaches);
        let open = runs && there && thing.held[n] == 0;
        let grants = if open { thing.open_grants(n) } else { 0 };
        (1..16).filter(move |g| grants >> g & 1 == 1)
    }

    pub fn publish(&mut self, v: usize, n: usize, generation: u64) -> Judged {
        let thing = &mut self.things[v];
        if thing.newest > generation {
            return Err(Broken::OldGeneration);
        }
        if thing.held[1 - n] != 0 {
            return Err(Broken::TwoWriters);
        }
        thing.held[n] = generation;
        Ok(())
    }

    /// The operator made sure that the node is off: nothing runs there.
    pub fn fence(&mut self, n: usize) {
        if self.nodes[n] == Life::Off {
            self.nodes[n] = Life::Fenced;
            for thing in &mut self.things {
                thing.held[n] = 0;
            }
        }
    }
}
