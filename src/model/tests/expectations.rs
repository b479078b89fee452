//! The orders in the documents are orders.
#![allow(clippy::expect_used, reason = "tests")]

use speediso_model::task::Task;

#[test]
fn the_examples_of_a_bill_of_materials_are_valid_orders() {
    let text = include_str!("../../../docs/inventory-compare.md");
    let examples: Vec<&str> = text.split("```json").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let value: serde_json::Value = serde_json::from_str(example).expect("JSON");
        let tasks = if value.is_array() { value } else { serde_json::json!([value]) };
        let tasks: Vec<Task> = serde_json::from_value(tasks).expect(example);
        assert!(matches!(&tasks[0], Task::Inventory(task) if task.expect.is_some()));
        tasks.iter().for_each(|task| task.validate().expect(example));
        // What is written again means the same.
        let written = serde_json::to_string(&tasks).expect("written");
        assert_eq!(serde_json::from_str::<Vec<Task>>(&written).expect("read back"), tasks);
    }
}
