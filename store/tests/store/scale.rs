//! How long the graph of a large store takes. Run by hand: `cargo test --release -p layerstore-store --test store scale:: -- --ignored --nocapture`.

use std::time::Instant;

use crate::{digest, open};

#[test]
#[ignore = "a measurement"]
fn loading_the_graph() {
    for layers in [10_000, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        fill(dir.path(), layers);
        let mut times = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            let graph = store.graph().unwrap();
            let loaded = start.elapsed();
            let start = Instant::now();
            let plan = layerstore_gc::plan(
                &graph,
                &layerstore_gc::Policy { scope: layerstore_gc::Scope::Unused, ..Default::default() },
            );
            let planned = start.elapsed();
            let start = Instant::now();
            layerstore_gc::account(&graph);
            times.push((loaded, planned, start.elapsed(), graph.nodes.len(), plan.victims.len()));
        }
        times.sort();
        println!("{layers} layers: {:?} {:?}", times[0], times[5]);
    }
}

/// Images of ten layers, each layer in one image, and one that all have.
fn fill(root: &std::path::Path, layers: usize) {
    let mut db = rusqlite::Connection::open(root.join("layerstore.db")).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    let tx = db.transaction().unwrap();
    let blob = |digest: &str, diff: Option<&str>| {
        tx.execute(
            "INSERT INTO blob (digest, size, diff_id, created_at) VALUES (?1, 5, ?2, 0)",
            (digest, diff),
        )
        .unwrap();
    };
    let tree = |n: usize, diff: &str| {
        tx.execute("INSERT INTO tree (id, diff_id, bytes, allocated, inodes, boot_id, mount_id, synced, created_at) VALUES (?1, ?2, 1, 1, 1, 'x', 0, 1, 0)", (format!("{n:08}"), diff)).unwrap();
    };
    let base = (digest("base").to_string(), digest("diff base").to_string());
    blob(&base.0, Some(&base.1));
    tree(99_999_999, &base.1);
    for image in 0..layers / 10 {
        let manifest = digest(&format!("manifest {image}")).to_string();
        let config = digest(&format!("config {image}")).to_string();
        blob(&manifest, None);
        blob(&config, None);
        tx.execute("INSERT INTO edge VALUES (?1, ?2, 'config', 0)", (&manifest, &config)).unwrap();
        let mut parent: Option<String> = None;
        let mut all = Vec::new();
        for layer in 0..11 {
            let number = image * 10 + layer - usize::from(layer > 0);
            let (name, diff) = if layer == 0 {
                base.clone()
            } else {
                (
                    digest(&format!("layer {number}")).to_string(),
                    digest(&format!("diff {number}")).to_string(),
                )
            };
            if layer > 0 {
                blob(&name, Some(&diff));
                tree(number, &diff);
            }
            let chain = if layer == 0 { digest("chain base") } else { digest(&format!("chain {number}")) }
                .to_string();
            let id = if layer == 0 { "99999999".to_owned() } else { format!("{number:08}") };
            tx.execute("INSERT OR IGNORE INTO snapshot (owner, key, kind, parent, tree, created_at, updated_at) VALUES ('local', ?1, 'committed', ?2, ?3, 0, 0)", (&chain, &parent, id)).unwrap();
            tx.execute("INSERT INTO edge VALUES (?1, ?2, 'layer', ?3)", (&manifest, &name, layer)).unwrap();
            parent = Some(chain);
            all.push((name, diff));
        }
        tx.execute("INSERT INTO image (manifest, config, platform, created, labels, chain_id) VALUES (?1, ?2, 'linux/amd64', 1, '{}', ?3)", (&manifest, &config, &parent)).unwrap();
        for (position, (blob, diff)) in all.iter().enumerate() {
            tx.execute("INSERT INTO image_layer VALUES (?1, ?2, ?3, ?4)", (&manifest, position, blob, diff))
                .unwrap();
        }
        tx.execute("INSERT INTO reference (owner, name, target, created_at, updated_at) VALUES ('local', ?1, ?2, 0, 0)", (format!("localhost/a{image}:1"), &manifest)).unwrap();
    }
    tx.commit().unwrap();
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}
