//! Names of files in memory, and which of them a power cut may undo.
//!
//! # Invariants
//!
//! 1. Node 0 is the root directory; it is never removed.
//! 2. `entries` of a directory is what readers see; `durable` is what the last sync of that directory saw, and
//!    `changes` leads from the one to the other, in order. A power cut keeps a prefix of the changes; a rename
//!    inside one directory is one change.
//! 3. A node lives as long as a name, durable or not, or an open file refers to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::content::Content;
use super::random::Random;

pub(super) type NodeId = u64;
pub(super) const ROOT: NodeId = 0;

/// Names that change at once; `None` removes.
type Change = Vec<(String, Option<NodeId>)>;

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
    changes: Vec<Change>,
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.entries, &change);
        self.changes.push(change);
    }

    fn references(&self) -> impl Iterator<Item = NodeId> + '_ {
        let pending = self.changes.iter().flatten().filter_map(|(_, node)| *node);
        self.entries.values().copied().chain(self.durable.values().copied()).chain(pending)
    }
}

fn apply(entries: &mut BTreeMap<String, NodeId>, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => _ = entries.insert(name.clone(), *node),
            None => _ = entries.remove(name),
        }
    }
}

#[derive(Debug)]
pub(super) enum Node {
    Directory(Directory, u32),
    File(Content, u32),
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: NodeId,
    /// Open files per node.
    pub(super) open: BTreeMap<NodeId, usize>,
}

fn error<T>(kind: io::ErrorKind) -> io::Result<T> {
    Err(io::Error::from(kind))
}

/// The names on the way; `.` and the root vanish, `..` goes up.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => match name.to_str() {
                Some(name) => names.push(name.to_owned()),
                None => return error(io::ErrorKind::InvalidInput),
            },
            Component::ParentDir => _ = names.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = Node::Directory(Directory::default(), 0o755);
        Tree { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, open: BTreeMap::new() }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Option<NodeId>> {
        let mut at = ROOT;
        for name in names(path)? {
            match self.nodes.get(&at) {
                Some(Node::Directory(directory, _)) => match directory.entries.get(&name) {
                    Some(&node) => at = node,
                    None => return Ok(None),
                },
                _ => return error(io::ErrorKind::NotADirectory),
            }
        }
        Ok(Some(at))
    }

    /// The directory that holds (or would hold) the name, and the name.
    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        let mut way = names(path)?;
        let Some(name) = way.pop() else { return error(io::ErrorKind::InvalidInput) };
        let above: std::path::PathBuf = way.iter().collect();
        match self.find(&above)? {
            Some(node) if self.is_directory(node) => Ok((node, name)),
            Some(_) => error(io::ErrorKind::NotADirectory),
            None => error(io::ErrorKind::NotFound),
        }
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[&node]
    }

    pub(super) fn content(&self, node: NodeId) -> &Content {
        match &self.nodes[&node] {
            Node::File(content, _) => content,
            Node::Directory(..) => unreachable!("only files are opened"),
        }
    }

    pub(super) fn content_mut(&mut self, node: NodeId) -> &mut Content {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content, _)) => content,
            _ => unreachable!("only files are opened"),
        }
    }

    fn is_directory(&self, node: NodeId) -> bool {
        matches!(self.nodes[&node], Node::Directory(..))
    }

    fn directory_mut(&mut self, node: NodeId) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory, _)) => Ok(directory),
            _ => error(io::ErrorKind::NotADirectory),
        }
    }

    fn add(&mut self, parent: NodeId, name: String, node: Node) -> io::Result<NodeId> {
        let id = self.next;
        self.directory_mut(parent)?.change(vec![(name, Some(id))]);
        self.next += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    pub(super) fn create_file(&mut self, path: &Path, mode: u32) -> io::Result<NodeId> {
        let (parent, name) = self.parent(path)?;
        self.add(parent, name, Node::File(Content::new()?, mode))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path, mode: u32) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            at = match self.directory_mut(at)?.entries.get(&name) {
                Some(&node) => node,
                None => self.add(at, name, Node::Directory(Directory::default(), mode))?,
            };
        }
        self.directory_mut(at).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(node) = self.find(from)? else { return error(io::ErrorKind::NotFound) };
        let (old_parent, old_name) = self.parent(from)?;
        let (new_parent, new_name) = self.parent(to)?;
        if let Some(target) = self.find(to)? {
            if target == node {
                return Ok(());
            }
            match (&self.nodes[&node], &self.nodes[&target]) {
                (Node::Directory(..), Node::Directory(directory, _)) if !directory.entries.is_empty() => {
                    return error(io::ErrorKind::DirectoryNotEmpty);
                }
                (Node::Directory(..), Node::File(..)) => return error(io::ErrorKind::NotADirectory),
                (Node::File(..), Node::Directory(..)) => return error(io::ErrorKind::IsADirectory),
                _ => {}
            }
        }
        if old_parent == new_parent {
            self.directory_mut(old_parent)?.change(vec![(old_name, None), (new_name, Some(node))]);
        } else {
            self.directory_mut(new_parent)?.change(vec![(new_name, Some(node))]);
            self.directory_mut(old_parent)?.change(vec![(old_name, None)]);
        }
        self.collect();
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, directories: bool) -> io::Result<()> {
        match self.find(path)? {
            None => error(io::ErrorKind::NotFound),
            Some(node) if self.is_directory(node) && !directories => error(io::ErrorKind::IsADirectory),
            Some(node) if !self.is_directory(node) && directories => error(io::ErrorKind::NotADirectory),
            Some(_) => {
                let (parent, name) = self.parent(path)?;
                self.directory_mut(parent)?.change(vec![(name, None)]);
                self.collect();
                Ok(())
            }
        }
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let Some(node) = self.find(path)? else { return error(io::ErrorKind::NotFound) };
        let directory = self.directory_mut(node)?;
        directory.durable = directory.entries.clone();
        directory.changes.clear();
        self.collect();
        Ok(())
    }

    /// Drops nodes that nothing refers to any more.
    pub(super) fn collect(&mut self) {
        let mut seen = BTreeSet::from([ROOT]);
        let mut todo: Vec<NodeId> = self.open.keys().copied().chain([ROOT]).collect();
        seen.extend(&todo);
        while let Some(node) = todo.pop() {
            if let Node::Directory(directory, _) = &self.nodes[&node] {
                todo.extend(directory.references().filter(|&found| seen.insert(found)));
            }
        }
        self.nodes.retain(|node, _| seen.contains(node));
    }

    /// Room taken by files that have a name or are open; a removed file's room is free at once, as on a real disk.
    pub(super) fn allocated(&self) -> u64 {
        let mut seen: BTreeSet<NodeId> = self.open.keys().copied().collect();
        let mut todo = vec![ROOT];
        while let Some(node) = todo.pop() {
            match &self.nodes[&node] {
                Node::Directory(directory, _) => todo.extend(directory.entries.values()),
                Node::File(..) => _ = seen.insert(node),
            }
        }
        seen.into_iter().map(|node| self.content(node).allocated()).sum()
    }

    /// The tree that a power cut (`Some`) or a killed process (`None`) leaves behind.
    pub(super) fn survivor(&self, mut random: Option<&mut Random>) -> io::Result<Tree> {
        let mut tree = Tree { nodes: BTreeMap::new(), next: self.next, open: BTreeMap::new() };
        for (&id, node) in &self.nodes {
            let node = match (node, random.as_deref_mut()) {
                (Node::File(content, mode), Some(random)) => Node::File(content.after_crash(random)?, *mode),
                (Node::File(content, mode), None) => Node::File(content.after_kill()?, *mode),
                (Node::Directory(directory, mode), random) => {
                    let entries = match random {
                        None => directory.entries.clone(),
                        Some(random) => {
                            let mut entries = directory.durable.clone();
                            let kept = random.below(directory.changes.len() + 1);
                            directory.changes[..kept].iter().for_each(|change| apply(&mut entries, change));
                            entries
                        }
                    };
                    let durable = entries.clone();
                    Node::Directory(Directory { entries, durable, changes: Vec::new() }, *mode)
                }
            };
            tree.nodes.insert(id, node);
        }
        tree.collect();
        Ok(tree)
    }
}
