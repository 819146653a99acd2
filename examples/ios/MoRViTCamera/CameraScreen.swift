import MoRViTKit
import SwiftUI

/// The live preview with the heat map over it.
struct CameraScreen: View {
    let recognizer: Recognizer
    let showsDepth: Bool

    @State private var camera: Camera?
    @State private var failure: String?

    var body: some View {
        Group {
            if let failure {
                ContentUnavailableView("No camera", systemImage: "camera", description: Text(failure))
            } else if let camera {
                CameraPreview(session: camera.session)
                    .overlay {
                        if showsDepth, let map = recognizer.prediction?.depth {
                            DepthOverlay(map: map, share: share)
                        }
                    }
                    .aspectRatio(aspect, contentMode: .fit)
                    .clipShape(RoundedRectangle(cornerRadius: 16))
            }
        }
        .frame(maxWidth: .infinity, maxHeight: .infinity)
        .task { await run() }
    }

    private var aspect: CGFloat { CGFloat(Camera.frameWidth) / CGFloat(Camera.frameHeight) }

    private var share: Double {
        recognizer.visibleShare(width: Camera.frameWidth, height: Camera.frameHeight)
    }

    private func run() async {
        let camera = Camera()  // a stream of frames ends with its task: each has its own
        self.camera = camera
        do {
            try await camera.start()
            await recognizer.follow(camera.frames)
        } catch {
            failure = error.localizedDescription
        }
        camera.stop()
    }
}
