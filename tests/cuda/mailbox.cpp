#include "mailbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// It is made by those who join.
std::string mailbox::name()
{
    const char *temporary = getenv("TMPDIR");
    std::string made = std::string(temporary && *temporary ? temporary : "/tmp") + "/lavaflow-nccl-XXXXXX";
    return mkdtemp(&made[0]) && !rmdir(made.c_str()) ? made : "";
}

static std::string numbered(const std::string &folder, const char *what, unsigned number)
{
    return folder + "/" + what + "." + std::to_string(number);
}

static bool create(const std::string &name)
{
    int file = open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (file >= 0)
        close(file);
    return file >= 0;
}

bool mailbox::join(int rank, unsigned device)
{
    mkdir(folder.c_str(), 0700);
    if (!create(numbered(folder, "rank", (unsigned)rank)))
        return false;
    devices[rank] = device;
    if (create(numbered(folder, "device", device)))
        return true;
    unlink(numbered(folder, "rank", (unsigned)rank).c_str());
    return false;
}

bool mailbox::is_complete(int count) const
{
    for (int rank = 0; rank < count; rank++)
        if (access(numbered(folder, "rank", (unsigned)rank).c_str(), F_OK))
            return false;
    return true;
}

void mailbox::leave(int rank)
{
    unlink(numbered(folder, "rank", (unsigned)rank).c_str());
    unlink(numbered(folder, "device", devices[rank]).c_str());
    devices.erase(rank);
    const std::string own = "." + std::to_string(rank) + ".";
    DIR *list = opendir(folder.c_str());
    while (const dirent *entry = list ? readdir(list) : NULL) {
        const char *at = strchr(entry->d_name, '.');
        if (at && !strncmp(at, own.c_str(), own.size()))
            unlink((folder + "/" + entry->d_name).c_str());
    }
    if (list)
        closedir(list);
    rmdir(folder.c_str());
}

std::string mailbox::path(const char *what, int from, int to, unsigned number) const
{
    return folder + "/" + what + "." + std::to_string(from) + "." + std::to_string(to) + "." + std::to_string(number);
}

void mailbox::send(const char *what, int from, int to, const void *bytes, size_t size)
{
    const std::string ready = path(what, from, to, sent[path(what, from, to, 0)]++), unready = ready + ".unready";
    FILE *file = fopen(unready.c_str(), "wb");
    bool written = file && fwrite(bytes, 1, size, file) == size;
    if (!file || fclose(file) || !written || rename(unready.c_str(), ready.c_str())) {
        perror(ready.c_str());
        abort();
    }
}

mailbox::outcome mailbox::receive(const char *what, int from, int to, std::vector<char> *bytes)
{
    unsigned *number = &received[path(what, from, to, 0)];
    const std::string file_name = path(what, from, to, *number);
    FILE *file = fopen(file_name.c_str(), "rb");
    if (!file)
        return NOT_YET;
    size_t size = fread(bytes->data(), 1, bytes->size(), file);
    bool right = size == bytes->size() && fgetc(file) == EOF;
    fclose(file);
    unlink(file_name.c_str());
    ++*number;
    return right ? THERE : ANOTHER_SIZE;
}
