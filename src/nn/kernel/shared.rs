//! Memory that the threads of one forward write in turns: each its own part within a step, with a barrier between the
//! step that writes and the step that reads.

use std::cell::UnsafeCell;

/// Values at a fixed place. Who reads or writes promises that nobody else writes the same ones at the same time.
#[repr(transparent)]
pub(in crate::nn) struct Shared<T>([UnsafeCell<T>]);

#[expect(unsafe_code, reason = "each access promises not to meet another one")]
// SAFETY: values are plain numbers that can move between threads; the methods that reach them through a shared
// reference are unsafe and leave the ordering to their callers.
unsafe impl<T: Copy + Send> Sync for Shared<T> {}

#[expect(unsafe_code, reason = "each access promises not to meet another one")]
impl<T: Copy + Default> Shared<T> {
    pub(in crate::nn) fn new(length: usize) -> Box<Self> {
        let values: Box<[T]> = vec![T::default(); length].into();
        // SAFETY: a transparent wrapper around cells, which are laid out as what they hold.
        unsafe { Box::from_raw(Box::into_raw(values) as *mut Self) }
    }

    /// The values of somebody who waits.
    pub(in crate::nn) fn lend(values: &mut [T]) -> &Self {
        // SAFETY: as above; the exclusive borrow lasts as long as what is given.
        unsafe { &*(std::ptr::from_mut(values) as *const Self) }
    }

    pub(in crate::nn) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above; borrowed exclusively.
        unsafe { &mut *(std::ptr::from_mut(self) as *mut [T]) }
    }

    /// A pointer to the values from `start` on, for whoever counts on for himself.
    ///
    /// # Safety
    /// What is read or written through it, nobody else writes meanwhile, and it lies within.
    #[inline]
    pub(in crate::nn) unsafe fn from(&self, start: usize) -> *mut T {
        assert!(start <= self.0.len(), "memory of {} asked for {start}", self.0.len());
        // SAFETY: at most one past the end.
        UnsafeCell::raw_get(unsafe { self.0.as_ptr().add(start) })
    }

    /// # Safety
    /// Nobody writes these values meanwhile.
    #[inline]
    pub(in crate::nn) unsafe fn read(&self, start: usize, length: usize) -> &[T] {
        assert!(start + length <= self.0.len(), "memory of {} read to {}", self.0.len(), start + length);
        // SAFETY: within, as checked; the caller vouches that nobody writes.
        unsafe { std::slice::from_raw_parts(self.from(start), length) }
    }

    /// # Safety
    /// Nobody else reads or writes these values meanwhile.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "the parts that different threads take are apart")]
    pub(in crate::nn) unsafe fn write(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start + length <= self.0.len(), "memory of {} written to {}", self.0.len(), start + length);
        // SAFETY: within, as checked; the caller vouches that nobody else is there.
        unsafe { std::slice::from_raw_parts_mut(self.from(start), length) }
    }
}
