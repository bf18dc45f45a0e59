/* Calls a denoiser for a few steps whose first block changes little, with the first-block cache. The denoiser is given as
 * a file or folder. */
#include <luna.h>

#include <stdio.h>
#include <stdlib.h>

enum { CHANNELS = 4, SIDE = 16, TOKENS = 7, STEPS = 4 };

static void check(luna_status status) {
    luna_error error = {0};
    if (status == LUNA_STATUS_OK) return;
    error.size = sizeof error;
    luna_last_error(&error);
    fprintf(stderr, "%s\n", error.text);
    exit(1);
}

static luna_view view(const float *data, int rank, int64_t a, int64_t b, int64_t c, int64_t d) {
    luna_view made = {0};
    made.data = data;
    made.rank = (uint32_t)rank;
    made.shape[0] = a, made.shape[1] = b, made.shape[2] = c, made.shape[3] = d;
    return made;
}

int main(int argc, char **argv) {
    static float noise[CHANNELS * SIDE * SIDE], text[TOKENS * 4096];
    luna_noise_level levels[STEPS + 1];
    luna_session session;
    luna_model model;
    luna_model_info info = {0};
    luna_forward_input input = {0};
    luna_forward_options options = {0};
    int step, hits = 0;
    if (argc != 2) return 1;
    info.size = sizeof info, input.size = sizeof input, options.size = sizeof options;
    check(luna_open(NULL, &session));
    check(luna_model_load(session, argv[1], NULL, &model));
    check(luna_model_get_info(model, &info));
    check(luna_noise_levels(STEPS, levels));
    options.cache_sequence = "positive", options.cache_threshold = 0.5F;
    for (step = 0; step < STEPS; step++) {
        luna_view x = view(noise, 4, 1, CHANNELS, SIDE, SIDE), times = view(&levels[step].timestep, 1, 1, 0, 0, 0);
        luna_view context = view(text, 3, 1, TOKENS, (int64_t)info.context_width, 0);
        luna_report report = {0};
        luna_tensor prediction;
        report.size = sizeof report;
        input.x = &x, input.timesteps = &times, input.context = &context;
        check(luna_model_forward(model, &input, &options, &prediction, &report));
        hits += (int)report.cache_hit;
        check(luna_tensor_free(prediction));
    }
    printf("%d steps, %d answered by the cache\n", STEPS, hits);
    check(luna_model_free(model));
    check(luna_close(session));
    return 0;
}
