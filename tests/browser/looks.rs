//! How it looks and reads: pictures in light and dark, on a wide screen and on a phone, and what a script can tell of
//! accessibility.
//!
//! Not here: whether it is beautiful. That is for whoever looks at the pictures.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::chapters::Scene;

/// Says what is wrong with the page, in sentences; nothing where nothing is.
const INSPECT: &str = include_str!("inspect.js");

/// A screen: its name, its size, and whether it is a phone's.
const SCREENS: [(&str, u32, u32, bool); 2] = [("wide", 1440, 1200, false), ("phone", 390, 844, true)];

/// What the reader's system prefers.
const SCHEMES: [&str; 2] = ["light", "dark"];

impl Scene {
    /// Looks at the page as its readers do.
    pub(crate) async fn readers_are_served(&mut self) {
        for scheme in SCHEMES {
            for (screen, width, height, mobile) in SCREENS {
                let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
                self.browser.command("Emulation.setEmulatedMedia", json!({ "features": features })).await;
                let size =
                    json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
                self.browser.command("Emulation.setDeviceMetricsOverride", size).await;
                self.open_dashboard().await;
                self.take_picture(&format!("{scheme}-{screen}")).await;
                let complaints: Vec<String> = self.browser.run(INSPECT).await;
                assert!(complaints.is_empty(), "{scheme}, {screen}:\n{}", complaints.join("\n"));
            }
        }
        self.browser.command("Emulation.clearDeviceMetricsOverride", json!({})).await;
        self.browser.command("Emulation.setEmulatedMedia", json!({ "features": [] })).await;
        self.passed(
            "light and dark, wide and phone: it can be read, named and reached, and does not scroll sideways",
        )
        .await;
    }

    /// Takes a picture of the whole page.
    async fn take_picture(&self, name: &str) {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.browser.command("Page.captureScreenshot", parameters).await;
        let picture = BASE64_STANDARD.decode(taken.get("data").unwrap().as_str().unwrap()).unwrap();
        fs::write(self.picture(name), picture).unwrap();
    }
}
