// SPDX-License-Identifier: Apache-2.0
//! What the database lies on: a file whose failed syncs are remembered, or one
//! that is only looked at.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend, backends::FileBackend};

/// A backend, and whether a sync of it ever failed: what the kernel then holds
/// of the file need not be what is on the disk.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) inner: Box<dyn StorageBackend>,
    pub(super) sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        let done = self.inner.sync_data();
        if done.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        done
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }
    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
}

const BLOCK: u64 = 4096;

/// A file that stays as it is: what is written to it is kept in memory, as far as
/// a database has to be put in order before it can be read.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    len: u64,
    /// The part of the file that still counts.
    kept: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> Result<Self, redb::DatabaseError> {
        let file = FileBackend::new(file)?;
        let len = file.len().map_err(redb::StorageError::from)?;
        let written = Written {
            len,
            kept: len,
            ..Written::default()
        };
        Ok(Self {
            file,
            written: Mutex::new(written),
        })
    }

    /// A block as it stands.
    fn block(&self, written: &Written, at: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = written.blocks.get(&at) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK as usize];
        let start = at * BLOCK;
        let there = written.kept.saturating_sub(start).min(BLOCK);
        // At most a block's length.
        self.file.read(start, &mut block[..there as usize])?;
        Ok(block)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let block = self.block(&written, at / BLOCK)?;
            let from = (at % BLOCK) as usize;
            let count = (block.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&block[from..from + count]);
            done += count;
        }
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.lock();
        written.kept = written.kept.min(len);
        written.len = len;
        let end = len.div_ceil(BLOCK);
        written.blocks.retain(|at, _| *at < end);
        if let Some(last) = written.blocks.get_mut(&(len / BLOCK)) {
            last[(len % BLOCK) as usize..].fill(0);
        }
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let mut block = self.block(&written, at / BLOCK)?;
            let from = (at % BLOCK) as usize;
            let count = (block.len() - from).min(data.len() - done);
            block[from..from + count].copy_from_slice(&data[done..done + count]);
            written.blocks.insert(at / BLOCK, block);
            done += count;
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        // All that can be had of a file open for reading; it keeps writers out.
        self.file.try_lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

impl Overlay {
    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_overlay_reads_what_was_written_and_leaves_the_file_as_it_is() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 5000]).unwrap();
        let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
        overlay.write(4000, &[2; 2000]).unwrap();
        let mut out = [9; 2000];
        overlay.read(3999, &mut out).unwrap();
        assert_eq!((out[0], out[1], out[1999]), (1, 2, 2));
        assert_eq!(overlay.len().unwrap(), 6000);
        assert!(overlay.read(5999, &mut [0; 2]).is_err());
        // What was cut off comes back as zeroes.
        overlay.set_len(100).unwrap();
        overlay.set_len(6000).unwrap();
        overlay.read(90, &mut out[..20]).unwrap();
        assert_eq!((out[9], out[10], out[19]), (1, 0, 0));
        assert_eq!(file.metadata().unwrap().len(), 5000);
    }
}
