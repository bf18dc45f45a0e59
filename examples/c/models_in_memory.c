/* Loads a model twice, which takes its memory once, and lists what is in memory. */
#include <luna.h>
#include <stdio.h>
#include <stdlib.h>

static void must(luna_status status) {
    if (status == LUNA_STATUS_OK) return;
    luna_error error = {0};
    error.size = sizeof error;
    luna_last_error(&error);
    fprintf(stderr, "%s: %s\n", luna_status_name(status), error.text);
    exit(1);
}

static void log_line(int32_t level, const char *message, void *user_data) {
    fprintf((FILE *)user_data, "[%d] %s\n", (int)level, message);
}

int main(void) {
    luna_open_options options = {0};
    options.size = sizeof options, options.log = log_line, options.user_data = stdout;
    luna_session session;
    luna_vae first, second;
    must(luna_open(&options, &session));
    must(luna_vae_load(session, "moonlet", &first));
    must(luna_vae_load(session, "moonlet", &second));

    luna_list models;
    size_t count;
    must(luna_list_residents(session, &models));
    must(luna_list_count(models, &count));
    for (size_t i = 0; i < count; i++) {
        luna_resident model = {0};
        model.size = sizeof model;
        must(luna_list_resident(models, i, &model));
        printf("%.12s %s: %llu bytes, %d handles\n", model.id, model.path, (unsigned long long)model.bytes,
               (int)model.leases);
    }
    must(luna_list_free(models));
    must(luna_vae_free(first));
    must(luna_vae_free(second));
    must(luna_close(session));
    return 0;
}
