//! Codes over time, and the delay by which the model reads and writes them.
//!
//! A *column* is what the codec knows: the codes of all codebooks of one moment, a 25th of a second. A *frame* is what
//! the model knows at one position: codebook k of the column k positions before. So speech of T columns, with one column
//! of stream begins before and one of ends behind, takes T + 2 + (K - 1) frames.

/// Codes of all codebooks, moment by moment. Rows are columns or frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    codebooks: usize,
    /// `[rows, codebooks]`
    values: Vec<u32>,
}

impl Codes {
    /// No rows yet.
    ///
    /// # Panics
    /// Without a codebook.
    pub fn new(codebooks: usize) -> Self {
        assert!(codebooks > 0, "codes of no codebook");
        Self { codebooks, values: Vec::new() }
    }

    /// From `[rows, codebooks]`. None where that is not a whole number of rows.
    pub fn from_rows(codebooks: usize, values: Vec<u32>) -> Option<Self> {
        (codebooks > 0 && values.len().is_multiple_of(codebooks)).then_some(Self { codebooks, values })
    }

    /// From `[codebooks, rows]`, as the codec has them. None where the codebooks are of unequal length.
    pub fn from_codebooks(codebooks: &[Vec<u32>]) -> Option<Self> {
        let rows = codebooks.first()?.len();
        let values = (0..rows).flat_map(|row| codebooks.iter().filter_map(move |book| book.get(row).copied()));
        let is_even = codebooks.iter().all(|book| book.len() == rows);
        is_even.then(|| Self { codebooks: codebooks.len(), values: values.collect() })
    }

    /// From rows of `K` codebooks.
    pub fn from_arrays<const K: usize>(rows: &[[u32; K]]) -> Self {
        const { assert!(K > 0, "codes of no codebook") };
        Self { codebooks: K, values: rows.as_flattened().to_vec() }
    }

    /// The rows, where they are of `K` codebooks.
    pub fn as_arrays<const K: usize>(&self) -> Option<&[[u32; K]]> {
        (K == self.codebooks).then(|| self.values.as_chunks().0)
    }

    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.codebooks
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// `[codebooks]`
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.values[row * self.codebooks..][..self.codebooks]
    }

    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[u32]> + ExactSizeIterator {
        self.values.chunks_exact(self.codebooks)
    }

    /// All of them, `[rows, codebooks]`.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// One codebook over time.
    pub fn codebook(&self, codebook: usize) -> impl Iterator<Item = u32> + '_ {
        self.rows().map(move |row| row[codebook])
    }

    /// # Panics
    /// Where it has another number of codebooks.
    pub fn push(&mut self, row: &[u32]) {
        assert_eq!(row.len(), self.codebooks, "a row of another number of codebooks");
        self.values.extend_from_slice(row);
    }

    /// The last `rows` of them, or all.
    #[must_use]
    pub fn last(&self, rows: usize) -> Self {
        let from = self.len().saturating_sub(rows) * self.codebooks;
        Self { codebooks: self.codebooks, values: self.values[from..].to_vec() }
    }
}

/// The two codes around a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges {
    pub begin: u32,
    pub end: u32,
}

impl Edges {
    /// The frames of a reference: its columns with their begins and ends, delayed.
    pub fn delay(&self, columns: &Codes) -> Codes {
        let codebooks = columns.codebooks();
        let whole = columns.len() + 2;
        let mut values = Vec::with_capacity((whole + codebooks - 1) * codebooks);
        for frame in 0..whole + codebooks - 1 {
            values.extend((0..codebooks).map(|codebook| match frame.checked_sub(codebook) {
                None | Some(0) => self.begin,
                Some(column) if column <= columns.len() => columns.row(column - 1)[codebook],
                Some(_) => self.end,
            }));
        }
        Codes { codebooks, values }
    }
}

/// The columns of which all codes are in `frames`, the begins (column 0) and ends among them.
pub fn revert(frames: &Codes) -> Codes {
    let codebooks = frames.codebooks();
    let columns = (frames.len() + 1).saturating_sub(codebooks);
    let code = |column: usize, codebook: usize| frames.row(column + codebook)[codebook];
    let values = (0..columns).flat_map(|column| (0..codebooks).map(move |codebook| code(column, codebook)));
    Codes { codebooks, values: values.collect() }
}
