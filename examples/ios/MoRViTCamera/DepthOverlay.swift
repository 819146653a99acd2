import MoRViTKit
import SwiftUI

/// The heat map over the square that the model sees, in the middle of the picture below: cool is shallow, warm is deep.
struct DepthOverlay: View {
    let map: DepthMap
    /// The part of the picture's shorter side that the model sees.
    let share: Double

    var body: some View {
        GeometryReader { space in
            let side = min(space.size.width, space.size.height) * share
            if let image = map.cgImage() {
                Image(decorative: image, scale: 1)
                    .resizable()
                    .interpolation(.none)
                    .frame(width: side, height: side)
                    .position(x: space.size.width / 2, y: space.size.height / 2)
                    .opacity(0.45)
            }
        }
        .allowsHitTesting(false)
        .accessibilityLabel("Depth of each patch, on average \(map.mean, specifier: "%.1f")")
    }
}
