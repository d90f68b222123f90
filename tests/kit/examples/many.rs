//! Writes a docker-archive of many tiny images, for measuring: `many OUT.tar [IMAGES LAYERS]`.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| args.get(i).map_or(default, |a| a.parse().expect("a number"));
    let path = args.first().expect("usage: many OUT.tar [IMAGES LAYERS]");
    let archive = layerstore_testkit::docker::many(number(1, 300), number(2, 10));
    std::fs::write(path, archive).expect("the archive can be written");
}
