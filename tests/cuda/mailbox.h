// What the stand-in for NCCL knows of other processes: a folder in which each leaves files for the others.
#ifndef LF_CUDA_MAILBOX_H
#define LF_CUDA_MAILBOX_H

#include <stddef.h>

#include <map>
#include <string>
#include <vector>

class mailbox
{
  public:
    enum outcome { THERE, NOT_YET, ANOTHER_SIZE };

    static std::string name(); // of a new folder, in that for temporary files; empty: there can be none
    explicit mailbox(const char *name) : folder(name)
    {
    }

    // False: the rank or the device has joined before, from whatever process.
    bool join(int rank, unsigned device);
    bool is_complete(int count) const; // all ranks have joined
    // Takes along what was not received. The last one removes the folder.
    void leave(int rank);

    void send(const char *what, int from, int to, const void *bytes, size_t size);
    // The first one that was sent so and not received, into *bytes, which has the size that is expected.
    outcome receive(const char *what, int from, int to, std::vector<char> *bytes);

  private:
    std::string path(const char *what, int from, int to, unsigned number) const;

    std::string folder;
    std::map<int, unsigned> devices;                // of ranks that have joined here
    std::map<std::string, unsigned> sent, received; // numbers, by what and the two ranks
};

#endif
