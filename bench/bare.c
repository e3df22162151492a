// SPDX-License-Identifier: Apache-2.0
//
// The bare work: what the kernel itself needs for one attachment of veth-route, asked for by a C program that does nothing
// else. It sends the same netlink messages as the agent, grouped the same way, and says how long they took in
// microseconds ("workMicroseconds"); opening the sockets of the node, which an agent has open, is not counted.
//
//   bare setup    makes the nf_tables sets once per node
//   bare          one CNI call, from the environment: CNI_COMMAND ADD or DEL, CNI_CONTAINERID pod-N, CNI_NETNS, CNI_IFNAME

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DESTROYSETELEM 30 // NFT_MSG_DESTROYSETELEM, Linux 6.3: older headers do not have it
#define IF_OPER_UP_STATE 6
#define CREATE (NLM_F_CREATE | NLM_F_EXCL)

static void die(const char *what) {
  printf("{\"code\": 100, \"msg\": \"Cannot %s: %s\"}\n", what, strerror(errno));
  exit(1);
}

// ---- A batch of messages: one send, then as many acknowledgements as were asked for

static char batch[8192];
static size_t length; // of the batch so far
static struct nlmsghdr *message;
static int asked, sequence;

static void *begin(int type, int flags, size_t header) {
  message = (struct nlmsghdr *)(batch + length);
  memset(message, 0, NLMSG_SPACE(header));
  message->nlmsg_len = NLMSG_LENGTH(header);
  message->nlmsg_type = type;
  message->nlmsg_flags = NLM_F_REQUEST | flags;
  message->nlmsg_seq = ++sequence;
  asked += (flags & NLM_F_ACK) != 0;
  length += NLMSG_SPACE(header);
  return NLMSG_DATA(message);
}

static struct nlattr *put(int type, const void *data, size_t bytes) {
  struct nlattr *attribute = (struct nlattr *)(batch + length);
  attribute->nla_type = type;
  attribute->nla_len = NLA_HDRLEN + bytes;
  memset((char *)attribute + NLA_HDRLEN, 0, NLA_ALIGN(bytes));
  if (data != NULL) memcpy((char *)attribute + NLA_HDRLEN, data, bytes);
  length += NLA_HDRLEN + NLA_ALIGN(bytes);
  message->nlmsg_len = batch + length - (char *)message;
  return attribute;
}
static void put32(int type, uint32_t value) { put(type, &value, 4); }
static void putText(int type, const char *text) { put(type, text, strlen(text) + 1); }
static struct nlattr *nest(int type) { return put(type, NULL, 0); }
static void end(struct nlattr *attribute) { attribute->nla_len = batch + length - (char *)attribute; }

static char answer[65536];
static int foundIndex, foundPeer, foundState;

static void readLink(struct nlmsghdr *reply) {
  struct ifinfomsg *link = NLMSG_DATA(reply);
  foundIndex = link->ifi_index;
  int rest = IFLA_PAYLOAD(reply);
  for (struct rtattr *a = IFLA_RTA(link); RTA_OK(a, rest); a = RTA_NEXT(a, rest)) {
    if (a->rta_type == IFLA_LINK) memcpy(&foundPeer, RTA_DATA(a), 4);
    if (a->rta_type == IFLA_OPERSTATE) foundState = *(unsigned char *)RTA_DATA(a);
  }
}

static void commit(int fd, const char *what) {
  if (send(fd, batch, length, 0) < 0) die(what);
  while (asked > 0) {
    ssize_t bytes = recv(fd, answer, sizeof answer, 0);
    if (bytes < 0) die(what);
    for (struct nlmsghdr *reply = (struct nlmsghdr *)answer; NLMSG_OK(reply, bytes); reply = NLMSG_NEXT(reply, bytes)) {
      if (reply->nlmsg_type == RTM_NEWLINK) readLink(reply);
      if (reply->nlmsg_type != NLMSG_ERROR) continue;
      errno = -((struct nlmsgerr *)NLMSG_DATA(reply))->error;
      if (errno != 0) die(what);
      asked--;
    }
  }
  length = 0;
}

static int netlink(int protocol) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK};
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("open a netlink socket");
  return fd;
}

// ---- The table: sets of links and addresses, as the agent has them

static void nft(int type, int flags) {
  struct nfgenmsg *header = begin(NFNL_SUBSYS_NFTABLES << 8 | type, flags, sizeof *header);
  header->nfgen_family = NFPROTO_INET;
}
static void frame(int type) {
  struct nfgenmsg *header = begin(type, 0, sizeof *header);
  header->res_id = htons(NFNL_SUBSYS_NFTABLES);
}

static void set(const char *name, int keyType, int keyBytes, int flags) {
  nft(NFT_MSG_NEWSET, NLM_F_CREATE | flags);
  putText(NFTA_SET_TABLE, "bare");
  putText(NFTA_SET_NAME, name);
  put32(NFTA_SET_FLAGS, 0);
  put32(NFTA_SET_KEY_TYPE, htonl(keyType));
  put32(NFTA_SET_KEY_LEN, htonl(keyBytes));
  put32(NFTA_SET_ID, htonl(1));
}

static void setup(void) {
  frame(NFNL_MSG_BATCH_BEGIN);
  nft(NFT_MSG_NEWTABLE, NLM_F_CREATE);
  putText(NFTA_TABLE_NAME, "bare");
  set("pod_links", 41, 16, 0);
  set("pod_addresses", 41 << 6 | 7, 20, NLM_F_ACK);
  frame(NFNL_MSG_BATCH_END);
  commit(netlink(NETLINK_NETFILTER), "make the table");
}

static void element(int type, const char *name, const void *key, size_t bytes, int flags) {
  nft(type, flags);
  putText(NFTA_SET_ELEM_LIST_TABLE, "bare");
  putText(NFTA_SET_ELEM_LIST_SET, name);
  struct nlattr *elements = nest(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
  struct nlattr *one = nest(NFTA_LIST_ELEM | NLA_F_NESTED);
  struct nlattr *data = nest(NFTA_SET_ELEM_KEY | NLA_F_NESTED);
  put(NFTA_DATA_VALUE, key, bytes);
  end(data);
  end(one);
  end(elements);
}

// ---- The pod

static char hostName[IFNAMSIZ];
static unsigned char podAddress[4], hostMac[6] = {2, 0xba, 0x4e}, podMac[6] = {6, 0xba, 0x4e};
static const unsigned char nextHop[4] = {169, 254, 1, 1};

static void linkMessage(int type, int flags, int index) {
  struct ifinfomsg *header = begin(type, NLM_F_ACK | flags, sizeof *header);
  header->ifi_index = index;
}
static void up(int index, const char *alias) {
  linkMessage(RTM_SETLINK, 0, index);
  struct ifinfomsg *header = NLMSG_DATA(message);
  header->ifi_flags = header->ifi_change = IFF_UP;
  if (alias != NULL) putText(IFLA_IFALIAS, alias);
}
static void pair(const char *ifName, int netns) {
  linkMessage(RTM_NEWLINK, CREATE, 0);
  putText(IFLA_IFNAME, hostName);
  put32(IFLA_MTU, 1500);
  put(IFLA_ADDRESS, hostMac, 6);
  struct nlattr *info = nest(IFLA_LINKINFO | NLA_F_NESTED);
  putText(IFLA_INFO_KIND, "veth");
  struct nlattr *data = nest(IFLA_INFO_DATA | NLA_F_NESTED);
  struct nlattr *peer = put(VETH_INFO_PEER, NULL, sizeof(struct ifinfomsg));
  putText(IFLA_IFNAME, ifName);
  put32(IFLA_MTU, 1500);
  put(IFLA_ADDRESS, podMac, 6);
  put32(IFLA_NET_NS_FD, netns);
  end(peer);
  end(data);
  end(info);
}
static void getLink(void) {
  linkMessage(RTM_GETLINK, 0, 0);
  putText(IFLA_IFNAME, hostName);
}
static void route(int index, const void *destination, const void *gateway, int scope) {
  struct rtmsg *header = begin(RTM_NEWROUTE, NLM_F_ACK | CREATE, sizeof *header);
  header->rtm_family = AF_INET;
  header->rtm_table = RT_TABLE_MAIN;
  header->rtm_protocol = RTPROT_STATIC;
  header->rtm_scope = scope;
  header->rtm_type = RTN_UNICAST;
  if (destination != NULL) header->rtm_dst_len = 32, put(RTA_DST, destination, 4);
  if (gateway != NULL) put(RTA_GATEWAY, gateway, 4);
  put32(RTA_OIF, index);
}
static void neighbour(int type, int index, int flags, const void *address, const void *mac) {
  struct ndmsg *header = begin(type, NLM_F_ACK | (type == RTM_NEWNEIGH ? NLM_F_CREATE | NLM_F_REPLACE : 0), sizeof *header);
  header->ndm_family = AF_INET;
  header->ndm_ifindex = index;
  header->ndm_state = NUD_PERMANENT;
  header->ndm_flags = flags;
  put(NDA_DST, address, 4);
  if (mac != NULL) put(NDA_LLADDR, mac, 6);
}
static void address(int index) {
  struct ifaddrmsg *header = begin(RTM_NEWADDR, NLM_F_ACK | CREATE, sizeof *header);
  header->ifa_family = AF_INET;
  header->ifa_prefixlen = 16;
  header->ifa_index = index;
  put(IFA_LOCAL, podAddress, 4);
  put(IFA_ADDRESS, podAddress, 4);
  put32(IFA_FLAGS, IFA_F_NOPREFIXROUTE);
}

static void elements(int netfilter, int type, int flags) {
  unsigned char key[20] = {0};
  memcpy(key, hostName, sizeof hostName);
  memcpy(key + 16, podAddress, 4);
  frame(NFNL_MSG_BATCH_BEGIN);
  element(type, "pod_links", key, 16, flags);
  element(type, "pod_addresses", key, 20, flags | NLM_F_ACK);
  frame(NFNL_MSG_BATCH_END);
  commit(netfilter, "change set elements");
}

static void add(int node, int netfilter, int home, int uplink, const char *netnsPath, const char *ifName) {
  int netns = open(netnsPath, O_RDONLY | O_CLOEXEC);
  if (netns < 0) die("open the pod's namespace");

  pair(ifName, netns);
  getLink();
  commit(node, "make the pair");
  int host = foundIndex, pod = foundPeer;

  elements(netfilter, NFT_MSG_NEWSETELEM, NLM_F_CREATE);

  up(host, "bare work");
  route(host, podAddress, NULL, RT_SCOPE_UNIVERSE);
  neighbour(RTM_NEWNEIGH, uplink, NTF_PROXY, podAddress, NULL);
  commit(node, "set the node's side up");

  if (setns(netns, CLONE_NEWNET) < 0) die("enter the pod's namespace");
  int inside = netlink(NETLINK_ROUTE);
  up(pod, NULL);
  address(pod);
  neighbour(RTM_NEWNEIGH, pod, 0, nextHop, hostMac);
  route(pod, nextHop, NULL, RT_SCOPE_LINK);
  route(pod, NULL, nextHop, RT_SCOPE_UNIVERSE);
  commit(inside, "set the pod's side up");
  close(inside);
  if (setns(home, CLONE_NEWNET) < 0) die("return from the pod's namespace");
  close(netns);

  for (getLink(), commit(node, "ask for carrier"); foundState != IF_OPER_UP_STATE; getLink(), commit(node, "ask for carrier"))
    poll(NULL, 0, 1);
}

static void del(int node, int netfilter, int uplink) {
  elements(netfilter, DESTROYSETELEM, 0);
  neighbour(RTM_DELNEIGH, uplink, NTF_PROXY, podAddress, NULL);
  commit(node, "remove the proxy entry");
  getLink();
  commit(node, "find the link");
  linkMessage(RTM_DELLINK, 0, foundIndex);
  commit(node, "remove the pair");
}

static const char *environment(const char *name) {
  const char *value = getenv(name);
  if (value == NULL) errno = EINVAL, die(name);
  return value;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "setup") == 0) return setup(), 0;
  int number = atoi(strchr(environment("CNI_CONTAINERID"), '-') + 1);
  uint32_t value = htonl(0x0a630002 + number); // 10.99.0.2 and on
  memcpy(podAddress, &value, 4);
  memcpy(hostMac + 3, (char *)&value + 1, 3);
  memcpy(podMac + 3, (char *)&value + 1, 3);
  snprintf(hostName, sizeof hostName, "bare%07d", number);

  int node = netlink(NETLINK_ROUTE), netfilter = netlink(NETLINK_NETFILTER);
  int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), uplink = if_nametoindex("uplink");
  struct timespec start, stop;
  clock_gettime(CLOCK_MONOTONIC, &start);
  if (strcmp(environment("CNI_COMMAND"), "ADD") == 0)
    add(node, netfilter, home, uplink, environment("CNI_NETNS"), environment("CNI_IFNAME"));
  else
    del(node, netfilter, uplink);
  clock_gettime(CLOCK_MONOTONIC, &stop);
  double us = (stop.tv_sec - start.tv_sec) * 1e6 + (stop.tv_nsec - start.tv_nsec) / 1e3;
  printf("{\"cniVersion\": \"1.0.0\", \"ips\": [], \"workMicroseconds\": %.1f}\n", us);
  return 0;
}
