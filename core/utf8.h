/* utf8.h - one character of UTF-8 at a time, by the rules of Unicode 15, table 3-7: shortest form only, no surrogates,
 * nothing above U+10FFFF.  These are libsentencepiece's rules too (src/util.cc, DecodeUTF8), which matters: a byte
 * that begins no character becomes U+FFFD alone, and the next byte is tried afresh.
 */
#ifndef LP_CORE_UTF8_H
#define LP_CORE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes a character has by its first byte; 0 where none can begin. */
static inline int lp_utf8_length(unsigned char first)
{
    if (first < 0x80) return 1;
    if (first < 0xc2) return 0; /* a continuation, or an overlong pair */
    if (first < 0xe0) return 2;
    if (first < 0xf0) return 3;
    return first < 0xf5 ? 4 : 0;
}

/* Is `next` allowed as the second byte after `first`?  Overlong forms, surrogates and the end of Unicode are all
 * decided here; every later byte is any continuation. */
static inline int lp_utf8_second(unsigned char first, unsigned char next)
{
    switch (first) {
    case 0xe0:
        return next >= 0xa0 && next <= 0xbf;
    case 0xed:
        return next >= 0x80 && next <= 0x9f;
    case 0xf0:
        return next >= 0x90 && next <= 0xbf;
    case 0xf4:
        return next >= 0x80 && next <= 0x8f;
    default:
        return next >= 0x80 && next <= 0xbf;
    }
}

/* Length of the valid character at s[0..n), n > 0; 0 when there is none; -1 when s[0..n) could still become one. */
static inline int lp_utf8_next(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    int len = lp_utf8_length(p[0]);
    for (int i = 1; i < len; i++) {
        if ((size_t)i == n) return -1;
        if (!(i == 1 ? lp_utf8_second(p[0], p[1]) : (p[i] & 0xc0) == 0x80)) return 0;
    }
    return len;
}

/* The code point of a character whose length lp_utf8_next has given. */
static inline uint32_t lp_utf8_code(const char *s, int len)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++) c = c << 6 | (p[i] & 0x3fu);
    return c;
}

#endif
