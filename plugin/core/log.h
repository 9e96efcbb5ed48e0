// Messages for a person: the plugin never prints; whoever loads it says where messages go. Everyone may call.
#ifndef LF_CORE_LOG_H
#define LF_CORE_LOG_H

typedef enum lf_log_level { LF_LOG_ERROR, LF_LOG_WARN, LF_LOG_INFO, LF_LOG_DEBUG } lf_log_level;

// Called on whatever thread logs, one call at a time. `text` is borrowed for the call.
typedef void lf_log_fn(void *user, lf_log_level level, const char *text);

// NULL drops every message, which is how it starts.
void lf_log_to(lf_log_fn *fn, void *user);

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void lf_log(lf_log_level level, const char *format, ...);

#endif
