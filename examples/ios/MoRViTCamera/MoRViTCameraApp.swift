import SwiftUI

/// Classifies what the camera sees with an exported MoR-ViT, and shows how deep each patch went.
@main
struct MoRViTCameraApp: App {
    @State private var recognizer = Recognizer()

    var body: some Scene {
        WindowGroup {
            ContentView(recognizer: recognizer)
        }
    }
}
