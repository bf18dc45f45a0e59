/* Encodes a prompt with a LoRA, and tells what became of each of its adapters. The LoRA is given as a file. */
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

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: apply_loras LORA\n"), 1;
    luna_session session;
    luna_text text;
    const char *paths[] = {"demo"}, *prompts[] = {"a red fox"};
    must(luna_open(NULL, &session));
    must(luna_text_load(session, paths, 1, NULL, &text));

    luna_lora entry = {0};
    entry.path = argv[1], entry.model = 0.8, entry.clip = 0.6;
    luna_loras loras;
    must(luna_loras_new(session, &entry, 1, NULL, &loras));

    luna_text_options options = {0};
    luna_report report = {0};
    luna_conditioning conditioning;
    options.size = sizeof options, options.loras = loras, report.size = sizeof report;
    must(luna_text_encode(text, prompts, 1, &options, &conditioning, &report));
    printf("%d adapters applied, %d not\n", (int)report.adapters_applied, (int)report.adapters_missed);

    luna_list adapters;
    size_t count;
    must(luna_loras_list_adapters(loras, &adapters));
    must(luna_list_count(adapters, &count));
    for (size_t i = 0; i < count; i++) {
        luna_lora_adapter adapter = {0};
        adapter.size = sizeof adapter;
        must(luna_list_lora_adapter(adapters, i, &adapter));
        if (adapter.outcome == LUNA_LORA_OUTCOME_APPLIED)
            printf("%s: %s for %s\n", adapter.file, adapter.kind, adapter.targets[0]);
        else
            printf("%s: %s is left out\n", adapter.file, adapter.key);
    }
    must(luna_list_free(adapters));
    must(luna_conditioning_free(conditioning));
    must(luna_loras_free(loras));
    must(luna_text_free(text));
    must(luna_close(session));
    return 0;
}
