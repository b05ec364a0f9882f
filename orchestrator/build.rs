//! Makes client and server of the cluster registration from its protobuf description.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().compile_protos(&["proto/register.proto"], &["proto"])
}
