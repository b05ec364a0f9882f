//! Kernels that lack something: the object asks for nothing that is not in each of them.

use aya::EbpfLoader;
use aya::programs::SchedClassifier;
use netmanager::datapath::{FROM_CONTAINER, FROM_UPLINK, OBJECT};

use crate::pins::Pins;

#[test]
fn the_programs_load_without_the_kernels_type_information() {
    let pins = Pins::new();
    std::fs::create_dir(pins.path()).unwrap();
    // As on Raspberry Pi OS and on Jetson, whose kernels have none.
    let mut object = EbpfLoader::new().btf(None).default_map_pin_directory(pins.path()).load(OBJECT).unwrap();
    for name in [FROM_CONTAINER, FROM_UPLINK] {
        let program: &mut SchedClassifier = object.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
    }
}
