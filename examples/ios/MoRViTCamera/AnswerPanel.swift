import MoRViTKit
import SwiftUI

/// Classes, bucket and latency of the newest prediction.
struct AnswerPanel: View {
    let prediction: Prediction

    var body: some View {
        VStack(alignment: .leading, spacing: 6) {
            ForEach(prediction.guesses(3)) { guess in
                HStack {
                    Text(guess.label).lineLimit(1)
                    Spacer()
                    Text(guess.probability, format: .percent.precision(.fractionLength(1))).monospacedDigit()
                }
                .fontWeight(guess == prediction.best ? .semibold : .regular)
            }
            Divider()
            HStack {
                Label(prediction.bucket.name, systemImage: "square.stack.3d.up")
                if prediction.didOverflow {
                    Text("after an overflow").foregroundStyle(.secondary)
                }
                Spacer()
                Text(Self.milliseconds(prediction.timing.total)).monospacedDigit()
            }
            .font(.footnote)
            Text(parts).font(.caption2).foregroundStyle(.secondary).monospacedDigit()
        }
        .padding()
        .background(.regularMaterial, in: RoundedRectangle(cornerRadius: 16))
    }

    private var parts: String {
        let timing = prediction.timing
        let named = [("image", timing.preprocess), ("stem", timing.stem), ("bucket", timing.trunk)]
        return named.map { "\($0.0) \(Self.milliseconds($0.1))" }.joined(separator: " · ")
    }

    private static func milliseconds(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let value = Double(seconds) * 1e3 + Double(attoseconds) / 1e15
        return value.formatted(.number.precision(.fractionLength(1))) + " ms"
    }
}
