//! What earlier models were made with can be made again.

use super::*;
use sha2::{Digest, Sha256};

/// The embedded model and what it is measured on are made of these.
#[test]
fn what_todays_configurations_give_does_not_change_by_a_byte() {
    let recipe: toml::Value = toml::from_str(include_str!("../../../../recipes/embedded.toml")).unwrap();
    let sources = recipe["phase"].as_array().unwrap().iter().flat_map(|phase| phase["source"].as_array().unwrap());
    let configured = sources.filter_map(|source| source.get("synth")).map(|synth| synth.clone().try_into().unwrap());
    let configs: Vec<SynthConfig> = [SynthConfig::default(), held_out()].into_iter().chain(configured).collect();
    assert_eq!(configs.len(), 14);
    let mut sum = Sha256::new();
    for sample in configs.iter().flat_map(|config| samples(config, 60)) {
        sum.update(format!("{}\n", crate::data::native::to_json(&sample.conversation)));
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sum, "66e281c830cd97cc9e9c53a5d391cf53ea05005e05842a307b996cf7e7a0d4cb");
}
