//! The document of the metadata service, as each api-version shows it.
//!
//! What matters to provisioning is the scenario's; the rest is what any VM has, and some of it is there to be
//! mistaken for what matters: names and values that a client must not take from elsewhere in the document.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::platform::http::State;

/// A subscription of nobody.
const SUBSCRIPTION: &str = "5c1d0f7e-3a52-4be8-b0c6-27f914e6a3d8";
/// As many data disks as the largest VMs have.
const MANY_DISKS: u32 = 64;

/// The document as an api-version shows it; `noise` adds as much as a document may have.
pub(super) fn document(state: &State, version: &str, extended: bool, noise: bool) -> Value {
    let vm = &state.scenario.vm;
    let identity = vm.identity.or_own();
    let user = identity.user.unwrap_or_default();
    let computer_name = identity.computer_name.unwrap_or_default();
    let group = "rg-lab";
    let resource = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{}",
        vm.name
    );
    let home = format!("/home/{user}/.ssh/authorized_keys");
    let keys: Vec<Value> = identity
        .keys
        .iter()
        .flatten()
        .map(|key| json!({ "keyData": key, "path": home }))
        .collect();
    let mut profile = json!({ "adminUsername": user, "computerName": computer_name });
    if version >= "2020-10-01" {
        // A string, not a boolean.
        let disabled = !identity.password_login.unwrap_or_default();
        profile["disablePasswordAuthentication"] = json!(disabled.to_string());
    }
    // A specialized image has no profile.
    let profile = (!user.is_empty() || !computer_name.is_empty()).then_some(profile);
    // In the order of the alphabet, as Azure has them; `osProfile` is neither first nor last.
    let fields: [(&str, &str, Option<Value>); 30] = [
        (
            "2018-10-01",
            "azEnvironment",
            Some(json!("AzurePublicCloud")),
        ),
        ("2019-02-01", "customData", Some(json!(""))),
        ("2020-12-01", "evictionPolicy", Some(json!(""))),
        (
            "2021-03-01",
            "extendedLocation",
            Some(json!({ "name": "", "type": "" })),
        ),
        (
            "2021-11-01",
            "isHostCompatibilityLayerVm",
            Some(json!("false")),
        ),
        ("2020-06-01", "licenseType", Some(json!(""))),
        ("2017-03-01", "location", Some(json!(vm.location))),
        ("2017-03-01", "name", Some(json!(vm.name))),
        ("2017-03-01", "offer", Some(json!(""))),
        ("2020-07-15", "osProfile", profile),
        ("2017-03-01", "osType", Some(json!("Linux"))),
        ("2017-08-01", "placementGroupId", Some(json!(""))),
        (
            "2018-04-02",
            "plan",
            Some(json!({ "name": "", "product": "", "publisher": "" })),
        ),
        ("2017-03-01", "platformFaultDomain", Some(json!("0"))),
        ("2017-03-01", "platformUpdateDomain", Some(json!("0"))),
        ("2020-12-01", "priority", Some(json!(""))),
        ("2018-10-01", "provider", Some(json!("Microsoft.Compute"))),
        ("2018-04-02", "publicKeys", Some(json!(keys))),
        ("2017-03-01", "publisher", Some(json!(""))),
        ("2017-08-01", "resourceGroupName", Some(json!(group))),
        ("2019-03-11", "resourceId", Some(json!(resource))),
        (
            "2020-06-01",
            "securityProfile",
            Some(json!({ "secureBootEnabled": "true", "virtualTpmEnabled": "true" })),
        ),
        ("2017-03-01", "sku", Some(json!(""))),
        (
            "2019-06-01",
            "storageProfile",
            Some(storage(vm.name.as_str(), noise)),
        ),
        ("2017-08-01", "subscriptionId", Some(json!(SUBSCRIPTION))),
        (
            "2017-08-01",
            "tags",
            Some(json!("adminUsername:nobody;owner:lab")),
        ),
        (
            "2019-06-04",
            "tagsList",
            // A customer writes tags, and may write what looks like something else.
            Some(json!([
                { "name": "adminUsername", "value": "nobody" },
                { "name": "osProfile", "value": "{\"computerName\":\"nowhere\",\"keyData\":\"\\u0041\"}" },
                { "name": "owner", "value": "J\u{fc}rgen \u{1f30d} \\ \"lab\"\n" },
            ])),
        ),
        ("2021-01-01", "userData", Some(json!(vm.user_data))),
        ("2017-04-02", "vmId", Some(json!(vm.id))),
        ("2017-03-01", "vmSize", Some(json!(vm.size))),
    ];
    let mut compute = json!({});
    for (first, name, value) in fields {
        if let Some(value) = value.filter(|_| version >= first) {
            compute[name] = value;
        }
    }
    let mut document = json!({ "compute": compute });
    if extended && version >= "2021-01-01" {
        let mut more = json!({ "hasCustomData": identity.custom_data.unwrap_or_default() });
        if let Some(kind) = identity.pps.filter(|kind| !kind.is_empty()) {
            more["ppsType"] = json!(kind);
        }
        document["extended"] = json!({ "compute": more });
    }
    document["network"] = json!({ "interface": interfaces(state) });
    document
}

/// The disks, whose names nobody needs for provisioning.
fn storage(name: &str, noise: bool) -> Value {
    let disk = |number: u32| {
        json!({
            "bytesPerSecondThrottle": "979202048",
            "caching": "None",
            "createOption": "Empty",
            "diskSizeGB": "1024",
            "image": { "uri": "" },
            "isSharedDisk": "false",
            "isUltraDisk": "true",
            "lun": number.to_string(),
            "managedDisk": { "id": format!("/subscriptions/{SUBSCRIPTION}/disks/data{number}"), "storageAccountType": "UltraSSD_LRS" },
            "name": format!("data{number}"),
            "opsPerSecondThrottle": "65280",
            "vhd": { "uri": "" },
            "writeAcceleratorEnabled": "false",
        })
    };
    let disks: Vec<Value> = (0..if noise { MANY_DISKS } else { 0 }).map(disk).collect();
    json!({
        "dataDisks": disks,
        "imageReference": { "id": "", "offer": "", "publisher": "", "sku": "", "version": "" },
        "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "diffDiskSettings": { "option": "" },
            "diskSizeGB": "30",
            "encryptionSettings": { "enabled": "false" },
            "image": { "uri": "" },
            "managedDisk": { "id": format!("/subscriptions/{SUBSCRIPTION}/disks/{name}"), "storageAccountType": "Premium_LRS" },
            "name": format!("{name}_OsDisk"),
            "osType": "Linux",
            "vhd": { "uri": "" },
            "writeAcceleratorEnabled": "false",
        },
        "resourceDisk": { "size": "16384" },
    })
}

fn interfaces(state: &State) -> Vec<Value> {
    let net = &state.scenario.net;
    let mask = u32::from(net.mask);
    // The order is not the order of the cards, and clients that think so shall notice.
    state
        .nics
        .iter()
        .rev()
        .map(|(mac, address)| {
            let primary = *address == net.address;
            let mask = if primary { mask } else { 0xffff_ff00 };
            let subnet = Ipv4Addr::from(u32::from(*address) & mask);
            let mac: String = mac.map(|byte| format!("{byte:02X}")).concat();
            json!({
                "ipv4": {
                    "ipAddress": [{ "privateIpAddress": address.to_string(), "publicIpAddress": "" }],
                    "subnet": [{ "address": subnet.to_string(), "prefix": mask.count_ones().to_string() }],
                },
                "ipv6": { "ipAddress": [] },
                "macAddress": mac,
            })
        })
        .collect()
}

/// Turns the strings that stand for truth into JSON's own words.
pub(super) fn say_truth_plainly(value: &mut Value) {
    match value {
        Value::String(text) if text == "true" || text == "false" => *value = json!(text == "true"),
        Value::Array(items) => items.iter_mut().for_each(say_truth_plainly),
        Value::Object(map) => map.values_mut().for_each(say_truth_plainly),
        _ => {}
    }
}

/// Writes the letters of all strings, names included, by their numbers, as RFC 8259 (7) allows.
pub(super) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 6);
    let (mut inside, mut behind) = (false, false);
    for letter in json.chars() {
        if letter == '"' && !behind {
            inside = !inside;
            out.push(letter);
        } else if !inside || behind || letter == '\\' {
            out.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        behind = inside && letter == '\\' && !behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_letters_mean_the_same() {
        let value = json!({ "a\"b": ["\\u", "J\u{fc}\u{1f30d}\n", true, { "": -1.5 }] });
        let text = escaped(&value.to_string());
        assert!(text.starts_with("{\"\\u0061\\\"\\u0062\":["), "{text}");
        assert!(text.contains("\\ud83c\\udf0d"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn truth_is_told_in_every_depth() {
        let mut value = json!({ "a": ["true", "truth", { "b": "false" }] });
        say_truth_plainly(&mut value);
        assert_eq!(value, json!({ "a": [true, "truth", { "b": false }] }));
    }
}
