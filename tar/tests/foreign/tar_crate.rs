use super::*;

#[test]
fn written_by_the_tar_crate() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o640);
    header.set_uid(1 << 40);
    header.set_mtime(77);
    let long = "long/".repeat(60) + "name";
    builder.append_data(&mut header.clone(), &long, &b"data"[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "link", "t".repeat(200)).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.x", &b"\0\n"[..]), ("mtime", b"1.5")]).unwrap();
    let mut ustar = tar::Header::new_ustar();
    ustar.set_size(4);
    builder.append_data(&mut ustar, "d".repeat(90) + "/" + &"n".repeat(90), &b"more"[..]).unwrap();
    let mut old = tar::Header::new_old();
    old.set_size(4);
    builder.append_data(&mut old, "old", &b"last"[..]).unwrap();
    let files = read(&builder.into_inner().unwrap());

    assert_eq!(files.len(), 4);
    assert_eq!((&files[0].entry.path[..], &files[0].content[..]), (long.as_bytes(), &b"data"[..]));
    assert_eq!((files[0].entry.uid, files[0].entry.mode), (1 << 40, 0o640));
    assert_eq!(files[1].entry.link, [b't'; 200]);
    assert_eq!(files[2].entry.xattrs, [(b"user.x".to_vec(), b"\0\n".to_vec())]);
    assert_eq!(files[2].entry.mtime, Timestamp { seconds: 1, nanoseconds: 500_000_000 });
    assert_eq!((files[2].entry.path.len(), &files[2].content[..]), (181, &b"more"[..]));
    assert_eq!((&files[3].entry.path[..], &files[3].content[..]), (&b"old"[..], &b"last"[..]));
}

/// Sparse files apart, which it knows only in the old form.
#[test]
fn the_tar_crate_reads_ours() {
    let samples: Vec<_> = samples().into_iter().filter(|(entry, _)| entry.sparse.is_none()).collect();
    let archive = write(&samples);
    let mut archive = tar::Archive::new(&archive[..]);
    let mut count = 0;
    for (theirs, (ours, data)) in archive.entries().unwrap().zip(&samples) {
        let mut theirs = theirs.unwrap();
        assert_eq!(*theirs.path_bytes(), ours.path);
        assert_eq!(theirs.link_name_bytes().unwrap_or_default(), ours.link);
        assert_eq!(theirs.header().mode().unwrap(), ours.mode);
        let mut content = Vec::new();
        theirs.read_to_end(&mut content).unwrap();
        assert_eq!(content, *data);
        count += 1;
    }
    assert_eq!(count, samples.len());
}
