#if DEBUG
import MoRViTKit
import SwiftUI

/// Returns the same prediction for every picture: previews need neither a model nor a camera.
struct PreviewClassifier: MoRViTClassifying {
    let description: ModelDescription
    let prediction: Prediction

    func predict(_ image: InputImage) async throws -> Prediction { prediction }
}

extension PreviewClassifier {
    /// Three digits, sixteen patches.
    static var digits: PreviewClassifier {
        let bucket = DispatchTable.Bucket(name: "b0", capacity: [16, 8, 2], macs: 1_000_000)
        let labels = ["one", "two", "three"]
        let preprocessing = Preprocessing(
            imageSize: 32, resize: 36, interpolation: "bicubic", mean: [0, 0, 0], std: [1, 1, 1]
        )
        return PreviewClassifier(
            description: ModelDescription(
                imageSize: 32, patchSize: 8, classes: labels.count, labels: labels, preprocessing: preprocessing,
                dispatch: DispatchTable(mode: .topk, lead: 0, buckets: [bucket]), steps: 3, answersDepth: true
            ),
            prediction: Prediction(
                logits: [0.5, 3, 1], labels: labels, bucket: bucket,
                depth: try? DepthMap(side: 4, depths: [0, 1, 1, 0, 1, 3, 2, 1, 1, 2, 3, 1, 0, 1, 1, 0], steps: 3),
                timing: Prediction.Timing(preprocess: .milliseconds(2), stem: .milliseconds(3), trunk: .milliseconds(4))
            )
        )
    }
}

#Preview("App") {
    ContentView(recognizer: Recognizer { _ in PreviewClassifier.digits })
}

#Preview("Panel, dark") {
    AnswerPanel(prediction: PreviewClassifier.digits.prediction).preferredColorScheme(.dark)
}
#endif
