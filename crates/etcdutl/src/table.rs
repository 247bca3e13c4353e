//! Tables in ASCII, as releases up to 3.6 draw them.

/// Cells wider than this are wrapped between words.
const WIDTH_MAX: usize = 30;

/// A table: headings centred in capitals, cells to the right.
#[must_use]
pub fn draw(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<Vec<String>> =
        headings.iter().map(|heading| wrap(&heading.replace('_', " ").to_uppercase())).collect();
    let rows: Vec<Vec<Vec<String>>> =
        rows.iter().map(|row| row.iter().map(|cell| wrap(cell)).collect()).collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).chain([&headings[column]]);
            cells.flatten().map(|line| line.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let mut text = rule.clone();
    text.push_str(&lines(&headings, &widths, centred));
    text.push_str(&rule);
    for row in &rows {
        text.push_str(&lines(row, &widths, |cell, width| format!("{cell:>width$}")));
    }
    if !rows.is_empty() {
        text.push_str(&rule);
    }
    text
}

fn centred(cell: &str, width: usize) -> String {
    let gap = width.saturating_sub(cell.chars().count());
    format!("{}{cell}{}", " ".repeat(gap / 2), " ".repeat(gap - gap / 2))
}

fn lines(row: &[Vec<String>], widths: &[usize], align: impl Fn(&str, usize) -> String) -> String {
    let height = row.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let mut text = String::new();
    for line in 0..height {
        for (cell, width) in row.iter().zip(widths) {
            let part = cell.get(line).map_or("", String::as_str);
            text.push_str("| ");
            text.push_str(&align(part, *width));
            text.push(' ');
        }
        text.push_str("|\n");
    }
    text
}

/// Lines of a cell. Words are never broken.
fn wrap(cell: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in cell.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH_MAX {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_tutorials_show_it() {
        let rows = vec![vec!["8e9e05c52164694d".into(), "started".into(), "default".into(), "false".into()]];
        expect_test::expect![[r"
            +------------------+---------+---------+------------+
            |        ID        | STATUS  |  NAME   | IS LEARNER |
            +------------------+---------+---------+------------+
            | 8e9e05c52164694d | started | default |      false |
            +------------------+---------+---------+------------+
        "]]
        .assert_eq(&draw(&["ID", "status", "Name", "Is_Learner"], &rows));
    }
}
