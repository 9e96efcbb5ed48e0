// Errors by value. Every function that can fail takes an lf_error *, fills it once and returns false, NULL or a
// negative number. Everyone may include this.
#ifndef LF_CORE_ERROR_H
#define LF_CORE_ERROR_H

#include <stdarg.h>

typedef enum lf_code {
    LF_OK,
    LF_EARG,         // the caller's argument or script is wrong: wrong usage
    LF_ENOMEM,       // out of memory, host or device
    LF_ENOTFOUND,    // no such file, object or device
    LF_EIO,          // the operating system failed: permission, disk full, …
    LF_EFORMAT,      // a file is not what it should be
    LF_EDATA,        // the values themselves are wrong: label out of range, NaN, …
    LF_EDEVICE,      // a device or its driver failed
    LF_EUNSUPPORTED, // right, but not possible here
    LF_EINTERRUPTED, // stopped on request
    LF_CODE_COUNT,
} lf_code;

typedef struct lf_error {
    lf_code code;
    char text[1024]; // one line that names the thing and both values
} lf_error;

// Fills `err` (NULL is fine). A later call replaces an earlier one.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
void lf_error_set(lf_error *err, lf_code code, const char *format, ...);
void lf_error_setv(lf_error *err, lf_code code, const char *format, va_list args);

// Puts "text: " in front of what `err` already says.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void lf_error_prefix(lf_error *err, const char *format, ...);

// "bad argument", "out of memory", …; never NULL.
const char *lf_code_name(lf_code code);

#endif
