//! Layers that nothing keeps, full of files.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::Connection;

use crate::digest;

/// Files a directory.
const FILES: usize = 100;

/// Plants `trees` unpacked layers of `files` empty files each, which no image has: a collection takes them away.
pub fn plant_garbage(root: &Path, trees: usize, files: usize) {
    let db = Connection::open(root.join("layerstore.db")).unwrap();
    for number in 0..trees {
        // No tree of an image begins like this, except by a chance of one in 36⁴.
        let id = format!("junk{number:04}");
        let diff = root.join("overlay2").join(&id).join("diff");
        for directory in 0..files.div_ceil(FILES) {
            let path = diff.join(directory.to_string());
            fs::create_dir_all(&path).unwrap();
            for file in 0..FILES.min(files - directory * FILES) {
                File::create(path.join(file.to_string())).unwrap();
            }
        }
        let blocks = (files.div_ceil(FILES) as u64 + 2) * 4096;
        db.execute(
            "INSERT INTO tree (id, diff_id, bytes, allocated, inodes, boot_id, mount_id, synced, created_at) \
             VALUES (?1, ?2, 0, ?3, ?4, 'planted', 0, 1, 1767225600)",
            (&id, digest(id.as_bytes()), blocks, files as u64),
        )
        .unwrap();
    }
}
