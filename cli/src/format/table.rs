//! Columns aligned as Go's `text/tabwriter` does it in Docker (least width 10, 3 spaces between).

use unicode_width::UnicodeWidthStr;

/// The least width of a column, with the spaces behind it.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// `text` with the tabs of each line replaced by spaces.
///
/// A cell is what a tab ends; what stands behind the last tab belongs to no column. A column is as
/// wide as the widest of its cells in neighbouring lines: a line without that column ends it.
pub(super) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = vec![Vec::new(); lines.len()];
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut block = Vec::new();
        let mut width = MIN_WIDTH;
        for (i, line) in lines.iter().enumerate() {
            if column + 1 < line.len() {
                width = width.max(line[column].width() + PADDING);
                block.push(i);
            } else {
                close(&mut block, width, &mut widths);
                width = MIN_WIDTH;
            }
        }
        close(&mut block, width, &mut widths);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (line, widths) in lines.iter().zip(&widths) {
        for (i, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(i) {
                out.extend(std::iter::repeat_n(' ', width - cell.width()));
            }
        }
        out.push('\n');
    }
    out
}

/// Gives the lines of a block the width of its column.
fn close(block: &mut Vec<usize>, width: usize, widths: &mut [Vec<usize>]) {
    for line in block.drain(..) {
        widths[line].push(width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = "REPOSITORY\tTAG\tSIZE\nlocalhost/app\t1\t5B\na\tversion-1.2.3\t6B\n";
        let expected = "\
REPOSITORY      TAG             SIZE
localhost/app   1               5B
a               version-1.2.3   6B
";
        assert_eq!(align(text), expected);
    }

    #[test]
    fn a_line_without_the_column_ends_it() {
        let text = "a-very-long-cell\tx\nno tab\nb\ty\n\nc\t\n";
        assert_eq!(align(text), "a-very-long-cell   x\nno tab\nb         y\n\nc         \n");
    }

    #[test]
    fn width_is_counted_in_columns_of_the_terminal() {
        assert_eq!(align("数据数据\t1\néé\t2\n"), "数据数据   1\néé         2\n");
    }

    #[test]
    fn many_columns_cost_no_stack() {
        let line = "\t".repeat(100_000);
        assert_eq!(align(&line).len(), 1_000_001);
    }
}
