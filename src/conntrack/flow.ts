// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip } from '#base'
import { ENOENT } from '#libc'
import {
  attributes,
  concat,
  ip,
  NLM_F_ACK,
  NLM_F_DUMP,
  nested,
  type Request,
  struct,
  type Transport,
  u8,
  u16be,
  u32,
  u32be,
} from '#netlink'

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
const NFNL_SUBSYS_CTNETLINK = 1
const IPCTNL_MSG_CT_GET = 1
const IPCTNL_MSG_CT_DELETE = 2
const AF_INET = 2
const AF_INET6 = 10
// net/netfilter/nf_conntrack_netlink.c: which parts of the tuple a dump compares, since Linux 5.8. Older kernels send all.
const CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3
const CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 5

/** linux/netfilter/nfnetlink.h, struct nfgenmsg. */
const nfgenmsg = struct([
  ['family', 'u8'],
  ['version', 'u8'],
  ['resourceId', 'u16be'],
])

/** CTA_TUPLE_*, CTA_IP_*, CTA_PROTO_*. */
const tuple = nested(
  attributes({
    addresses: [
      1,
      nested(attributes({ source4: [1, ip], destination4: [2, ip], source6: [3, ip], destination6: [4, ip] })),
    ],
    protocol: [2, nested(attributes({ number: [1, u8], sourcePort: [2, u16be], destinationPort: [3, u16be] }))],
    zone: [3, u16be],
  }),
)

/** enum ctattr_type. */
export const flowAttributes = attributes({
  original: [1, tuple],
  id: [12, u32be],
  zone: [18, u16be],
  filter: [25, nested(attributes({ original: [1, u32], reply: [2, u32] }))],
})

/** A connection as its first packet had it, before any translation. */
export type Flow = {
  readonly protocol: number
  readonly source: Ip
  readonly destination: Ip
  readonly sourcePort: number
  readonly destinationPort: number
  /** The kernel's number for it: a later connection of the same addresses and ports has another. */
  readonly id: number
  /** Of the connection, and of this direction of it; 0 where nobody set one. */
  readonly zone: number
  readonly directionZone: number
}

const encode = (family: number, values: Parameters<typeof flowAttributes.encode>[0]) =>
  concat([nfgenmsg.encode({ family }), flowAttributes.encode(values)])

/** The connections of one protocol in one family, of all destination ports or of one. @throws {NetlinkError} */
export function listFlows(
  transport: Transport,
  filter: { readonly version: 'v4' | 'v6'; readonly protocol: number; readonly destinationPort?: number },
): Flow[] {
  const { version, protocol, destinationPort } = filter
  const port = destinationPort === undefined ? {} : { destinationPort }
  const flags = CTA_FILTER_F_CTA_PROTO_NUM | (destinationPort === undefined ? 0 : CTA_FILTER_F_CTA_PROTO_DST_PORT)
  const dump: Request = {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET,
    flags: NLM_F_DUMP,
    body: encode(version === 'v4' ? AF_INET : AF_INET6, {
      original: { protocol: { number: protocol, ...port } },
      filter: { original: flags, reply: 0 },
    }),
    about: 'list tracked connections',
  }
  return transport
    .execute([dump])[0]!
    .messages.flatMap(({ body }) => decodeFlow(body) ?? [])
    .filter(flow => flow.protocol === protocol)
    .filter(flow => destinationPort === undefined || flow.destinationPort === destinationPort)
}

function decodeFlow(body: Uint8Array): Flow | undefined {
  const { original, id = 0, zone = 0 } = flowAttributes.decode(body.subarray(nfgenmsg.size))
  const { source4, destination4, source6 = source4, destination6 = destination4 } = original?.addresses ?? {}
  const { number, sourcePort = 0, destinationPort = 0 } = original?.protocol ?? {}
  if (source6 === undefined || destination6 === undefined || number === undefined) return undefined
  return {
    ...{ protocol: number, source: source6, destination: destination6, sourcePort, destinationPort },
    ...{ id, zone, directionZone: original?.zone ?? 0 },
  }
}

/** Forgets a connection: its next packet is looked at as a first one. Absence is success. */
export function deleteFlow(flow: Flow): Request {
  const { source, destination, sourcePort, destinationPort, zone, directionZone } = flow
  const v4 = source.length === 4
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
    flags: NLM_F_ACK,
    body: encode(v4 ? AF_INET : AF_INET6, {
      original: {
        addresses: v4 ? { source4: source, destination4: destination } : { source6: source, destination6: destination },
        protocol: { number: flow.protocol, sourcePort, destinationPort },
        ...(directionZone === 0 ? {} : { zone: directionZone }),
      },
      id: flow.id,
      ...(zone === 0 ? {} : { zone }),
    }),
    about: `forget connection from ${formatIp(source)} port ${sourcePort} to ${formatIp(destination)} port ${destinationPort}`,
    tolerate: [ENOENT],
  }
}
