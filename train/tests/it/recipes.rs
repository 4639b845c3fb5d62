//! The shipped recipes: each reads, and its first line is the command that runs it.

use callsmith_train::recipe::{Method, Recipe};
use std::path::Path;

#[test]
fn every_shipped_recipe_reads_and_begins_with_its_command() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let recipe = Recipe::load(&path, &[]).unwrap();
        let verb = match recipe.method {
            Method::Full => "full",
            Method::Lora => "lora",
            Method::Prompt => "prompt",
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(text.lines().next().unwrap(), format!("# callsmith-train {verb} train/recipes/{name}"));
        seen += 1;
    }
    assert!(seen >= 2);
}
