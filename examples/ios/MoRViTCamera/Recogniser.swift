import Foundation
import MoRViTKit
import Observation

/// Holds the classifier, feeds it frames one after the other, and keeps the newest answer for the views.
@MainActor
@Observable
final class Recogniser {
    enum State {
        case loading
        case ready(MoRViTClassifier)
        case failed(Failure)
    }

    /// What a view says of an error.
    struct Failure {
        let text: String

        init(_ error: any Error) {
            let advice = (error as? any LocalizedError)?.recoverySuggestion
            text = [error.localizedDescription, advice].compactMap { $0 }.joined(separator: " ")
        }
    }

    private(set) var state = State.loading
    private(set) var prediction: Prediction?
    private(set) var problem: Failure?

    var classifier: MoRViTClassifier? {
        if case .ready(let classifier) = state { return classifier }
        return nil
    }

    /// The part of a picture's shorter side that the model sees.
    func visibleShare(width: Int, height: Int) -> Double {
        classifier?.description.preprocessing.visibleShare(width: width, height: height) ?? 1
    }

    /// Opens the model anew; frames that come meanwhile are dropped.
    func load(_ units: ComputeUnits) async {
        state = .loading
        prediction = nil
        do {
            let classifier = try await MoRViTClassifier.load(computeUnits: units, allowsUpscaling: true)
            if !Task.isCancelled {
                state = .ready(classifier)
            }
        } catch {
            if !Task.isCancelled {
                state = .failed(Failure(error))
            }
        }
    }

    /// Answers each frame in turn until the stream or the task ends. The stream keeps only the newest frame.
    func follow(_ frames: AsyncStream<InputImage>) async {
        for await frame in frames {
            await classify(frame)
        }
    }

    /// Answers one picture.
    func classify(_ image: InputImage) async {
        guard let classifier else { return }
        do {
            prediction = try await classifier.predict(image)
            problem = nil
        } catch is CancellationError {
            return
        } catch {
            problem = Failure(error)
        }
    }
}
