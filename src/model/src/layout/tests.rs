use serde_json::{Value, json};

use super::*;
use crate::task::Task;

fn task(more: &Value) -> PartitionTask {
    let mut task = json!({"device": {"serial": "x"}, "partitions": []});
    task.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(task).unwrap_or_else(|e| panic!("{more}: {e}"))
}

fn one(partition: &Value) -> Value {
    let mut spec = json!({"name": "a", "kind": "linux", "size": "rest"});
    spec.as_object_mut().expect("an object").extend(partition.as_object().expect("an object").clone());
    json!({"partitions": [spec]})
}

fn lvm(volumes: &Value) -> Value {
    let part = |name: &str| json!({"name": name, "kind": "lvm", "size": "rest", "content": {"lvm": "vg"}});
    json!({
        "partitions": [part("a")],
        "more_disks": [{"device": {"serial": "y"}, "partitions": [part("b")]}],
        "volume_groups": [{"name": "vg", "volumes": volumes}],
    })
}

#[test]
fn layouts_that_can_be_made_are_taken() {
    let fs = |kind: &str, label: &str| json!({"file_system": {"kind": kind, "label": label}});
    for good in [
        one(&json!({})),
        one(&json!({"size": {"percent": 100}, "number": 15, "flags": ["required", "no_auto"]})),
        one(&json!({"kind": "esp", "content": fs("vfat", "ESP")})),
        one(&json!({"content": {"file_system": {"kind": "vfat", "uuid": "1234-ABCD"}}})),
        one(&json!({"content": {"luks": {"key": "a long secret", "content": fs("ext4", "root")}}})),
        json!({"keep": [{"label": "data"}, {"number": 3}]}),
        json!({"table": "mbr", "partitions": [{"name": "", "kind": {"mbr": 0x0c}, "size": "rest", "flags": ["legacy_boot"]}]}),
        lvm(&json!([
            {"name": "root", "size": {"bytes": 1 << 30}, "kind": {"mirror": 2}, "content": fs("xfs", "root")},
            {"name": "pool", "size": "rest", "kind": "thin_pool"},
            {"name": "thin", "size": {"bytes": 1u64 << 40}, "kind": {"thin": "pool"}, "content": fs("ext4", "big")},
        ])),
    ] {
        task(&good).check().unwrap_or_else(|e| panic!("{good}: {e}"));
    }
}

#[test]
fn layouts_that_cannot_be_made_are_named() {
    let fs = |kind: &str, more: Value| {
        let mut made = json!({"kind": kind});
        made.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        one(&json!({"content": {"file_system": made}}))
    };
    let uuid = "11111111-1111-4111-8111-111111111111";
    let two = |a: Value, b: Value| {
        let both = [one(&a), one(&b)].map(|one| one["partitions"][0].clone());
        json!({"partitions": both})
    };
    for (bad, word) in [
        (json!({}), "partitions"),
        (one(&json!({"size": {"bytes": 0}})), "partitions[0].size"),
        (one(&json!({"size": {"percent": 101}})), "partitions[0].size"),
        (two(json!({"size": {"percent": 60}}), json!({"size": {"percent": 41}})), "partitions: 101 percent"),
        (two(json!({}), json!({})), "partitions: only one"),
        (one(&json!({"name": "x".repeat(37)})), "partitions[0].name"),
        (one(&json!({"number": 129})), "partitions[0].number"),
        (two(json!({"number": 2}), json!({"number": 2, "size": {"bytes": 1}})), "partitions[1].number"),
        (two(json!({"uuid": uuid}), json!({"uuid": uuid, "size": {"bytes": 1}})), "uuid"),
        (fs("ext4", json!({"label": "seventeen letters"})), "partitions[0].content.file_system.label"),
        (fs("xfs", json!({"label": "far too long!"})), "partitions[0].content.file_system.label"),
        (fs("vfat", json!({"label": "lower"})), "partitions[0].content.file_system.label"),
        (fs("ext4", json!({"uuid": "1234-ABCD"})), "partitions[0].content.file_system.uuid"),
        (fs("ntfs", json!({"uuid": uuid})), "partitions[0].content.file_system.uuid"),
        (one(&json!({"kind": "esp", "content": {"file_system": {"kind": "ext4"}}})), "partitions[0].content"),
        (one(&json!({"content": {"luks": {"key": "short"}}})), "partitions[0].content.luks.key"),
        (one(&json!({"content": {"lvm": "vg"}})), "volume_groups"),
        (json!({"volume_groups": [{"name": "vg", "volumes": []}], "keep": [{"number": 1}]}), "volume_groups[0]"),
        (json!({"keep": [{"number": 1}, {"number": 1}]}), "keep[1]"),
        (json!({"table": "mbr", "keep": [{"label": "x"}]}), "keep"),
        (json!({"table": "mbr", "partitions": one(&json!({"kind": "bios_boot"}))["partitions"]}), "partitions[0].kind"),
        (json!({"table": "mbr", "partitions": one(&json!({"uuid": uuid}))["partitions"]}), "partitions[0].uuid"),
        (
            lvm(&json!([{"name": "a", "size": "rest"}, {"name": "b", "size": {"bytes": 1}}])),
            "volume_groups[0].volumes[0].size",
        ),
        (lvm(&json!([{"name": "a", "size": {"bytes": 1}, "kind": {"mirror": 3}}])), "volume_groups[0].volumes[0].kind"),
        (lvm(&json!([{"name": "a", "size": {"bytes": 1}, "kind": {"thin": "p"}}])), "volume_groups[0].volumes[0].kind"),
        (lvm(&json!([{"name": "a_tmeta", "size": {"bytes": 1}}])), "volume_groups[0].volumes[0].name"),
        (lvm(&json!([{"name": "a b", "size": {"bytes": 1}}])), "volume_groups[0].volumes[0].name"),
    ] {
        let error = task(&bad).check().expect_err("refused");
        assert!(error.starts_with(word), "{bad}: {error}");
    }
}

#[test]
fn a_key_is_shown_nowhere() {
    let inner = json!({"luks": {"key": "correct horse battery", "content": {"lvm": "vg"}}});
    let volume = json!({"name": "v", "size": "rest", "content": {"luks": {"key": "staple correct horse"}}});
    let mut layout = lvm(&json!([volume]));
    layout["partitions"][0]["content"] = inner.clone();
    layout["more_disks"][0]["partitions"][0]["content"] = inner;
    let task = Task::Partition(task(&layout));
    task.validate().expect("good");
    assert!(serde_json::to_string(&task).expect("written").contains("battery"), "the task itself carries it");
    let shown = serde_json::to_string(&task.redacted()).expect("written");
    for text in [shown, format!("{task:?}"), format!("{:?}", task.redacted())] {
        assert!(!text.contains("horse"), "{text}");
    }
}
