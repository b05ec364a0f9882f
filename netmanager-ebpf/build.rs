//! Links again when the linker changes, which cargo does not see by itself.

fn main() {
    println!("cargo:rerun-if-env-changed=HYPHA_BPF_LINKER");
    if let Ok(linker) = std::env::var("HYPHA_BPF_LINKER") {
        println!("cargo:rerun-if-changed={linker}");
    }
}
