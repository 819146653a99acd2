import MoRViTKit
import SwiftUI

/// Camera or photo, the prediction below, compute units above.
struct ContentView: View {
    enum Source: String, CaseIterable, Identifiable {
        case camera = "Camera"
        case photo = "Photo"

        var id: Self { self }
    }

    let recognizer: Recognizer

    @AppStorage("computeUnits") private var units = ComputeUnits.all
    @AppStorage("showsDepth") private var showsDepth = true
    @State private var source = Source.camera

    var body: some View {
        NavigationStack {
            VStack(spacing: 12) {
                Picker("Source", selection: $source) {
                    ForEach(Source.allCases) { Text($0.rawValue).tag($0) }
                }
                .pickerStyle(.segmented)
                content
            }
            .padding()
            .navigationTitle("MoR-ViT")
            .navigationBarTitleDisplayMode(.inline)
            .toolbar { menu }
        }
        .task(id: units) { await recognizer.load(units) }
    }

    @ViewBuilder private var content: some View {
        switch recognizer.state {
        case .loading:
            Spacer()
            ProgressView("Loading the model")
            Spacer()
        case .failed(let failure):
            ContentUnavailableView(
                "The model cannot be loaded", systemImage: "exclamationmark.triangle",
                description: Text(failure.text)
            )
        case .ready:
            switch source {
            case .camera: CameraScreen(recognizer: recognizer, showsDepth: showsDepth)
            case .photo: PhotoScreen(recognizer: recognizer, showsDepth: showsDepth)
            }
            AnswerArea(recognizer: recognizer)
        }
    }

    private var menu: some ToolbarContent {
        ToolbarItem(placement: .topBarTrailing) {
            Menu("Options", systemImage: "slider.horizontal.3") {
                Picker("Compute units", selection: $units) {
                    ForEach(ComputeUnits.allCases) { Text($0.title).tag($0) }
                }
                Toggle("Depth heat map", isOn: $showsDepth)
                    .disabled(recognizer.classifier?.description.answersDepth != true)
            }
        }
    }
}

/// The newest prediction, or what went wrong. A view of its own: it changes with every frame, the window does not.
struct AnswerArea: View {
    let recognizer: Recognizer

    var body: some View {
        if let problem = recognizer.problem {
            Text(problem.text).font(.footnote).foregroundStyle(.red)
        }
        if let prediction = recognizer.prediction {
            AnswerPanel(prediction: prediction)
        }
    }
}
