// SPDX-License-Identifier: Apache-2.0

import { ENOENT } from '#libc'
import {
  attributes,
  bytes,
  type Infer,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  nested,
  string,
  type Transport,
  u32be,
  u64be,
} from '#netlink'
import {
  type Change,
  decodeAnswer,
  familyName,
  message,
  NFT_MSG_DELCHAIN,
  NFT_MSG_GETCHAIN,
  NFT_MSG_NEWCHAIN,
} from './message.ts'
import { formatTable, type Table } from './table.ts'
import { decodeComment, encodeComment } from './userdata.ts'

// linux/netfilter/nf_tables.h, enum nft_chain_attributes and nft_hook_attributes
const NFTA_CHAIN_TABLE = 1
const NFTA_CHAIN_HANDLE = 2
const NFTA_CHAIN_NAME = 3
const NFTA_CHAIN_HOOK = 4
const NFTA_CHAIN_POLICY = 5
const NFTA_CHAIN_USE = 6
const NFTA_CHAIN_TYPE = 7
const NFTA_CHAIN_USERDATA = 12
const NFTA_HOOK_HOOKNUM = 1
const NFTA_HOOK_PRIORITY = 2
const NFTA_HOOK_DEV = 3

export const chainAttributes = attributes({
  table: [NFTA_CHAIN_TABLE, string()],
  handle: [NFTA_CHAIN_HANDLE, u64be],
  name: [NFTA_CHAIN_NAME, string()],
  type: [NFTA_CHAIN_TYPE, string()],
  policy: [NFTA_CHAIN_POLICY, u32be],
  use: [NFTA_CHAIN_USE, u32be],
  hook: [
    NFTA_CHAIN_HOOK,
    nested(
      attributes({
        number: [NFTA_HOOK_HOOKNUM, u32be],
        priority: [NFTA_HOOK_PRIORITY, u32be],
        device: [NFTA_HOOK_DEV, string()],
      }),
    ),
  ],
  userdata: [NFTA_CHAIN_USERDATA, bytes],
})
export type ChainAttributes = Infer<typeof chainAttributes>

/** NF_INET_* and, for family netdev, NF_NETDEV_INGRESS, by nft's names. */
export const hooks = { ingress: 0, prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const
/** NF_DROP and NF_ACCEPT. */
export const policies = { drop: 0, accept: 1 } as const

/** A chain to make; without `base` a regular one, reached by jump and goto. */
export type Chain = {
  readonly table: Table
  readonly name: string
  readonly base?: {
    readonly type: 'filter' | 'nat' | 'route'
    readonly hook: keyof typeof hooks
    /** The link whose packets the chain sees; family netdev alone. */
    readonly device?: string
    /** Smaller is earlier: raw -300, conntrack -200, mangle -150, dstnat -100, filter 0, srcnat 100. */
    readonly priority: number
    readonly policy: keyof typeof policies
  }
  readonly comment?: string
}

export const formatChain = (chain: Pick<Chain, 'table' | 'name'>): string => `${formatTable(chain.table)} ${chain.name}`

/** Makes the chain. `exclusive`: EEXIST where it is there already, else that is success. */
export function addChain(chain: Chain, options: { exclusive?: boolean } = {}): Change {
  const { base, comment } = chain
  const values: ChainAttributes = {
    table: chain.table.name,
    name: chain.name,
    ...(base === undefined
      ? {}
      : {
          type: base.type,
          policy: policies[base.policy],
          hook: {
            number: hooks[base.hook],
            priority: base.priority >>> 0,
            ...(base.device === undefined ? {} : { device: base.device }),
          },
        }),
    ...(comment === undefined ? {} : { userdata: encodeComment(comment) }),
  }
  return message(NFT_MSG_NEWCHAIN, chain.table.family, chainAttributes, values, {
    verb: 'add',
    object: `chain ${formatChain(chain)}`,
    flags: NLM_F_CREATE | (options.exclusive ? NLM_F_EXCL : 0),
  })
}

/** Removes the chain and its rules. EBUSY while another chain refers to it. */
export function deleteChain(chain: Pick<Chain, 'table' | 'name'>): Change {
  const values = { table: chain.table.name, name: chain.name }
  return message(NFT_MSG_DELCHAIN, chain.table.family, chainAttributes, values, {
    verb: 'delete',
    object: `chain ${formatChain(chain)}`,
  })
}

/** A chain as the kernel describes it. */
export type ChainState = {
  readonly family: string
  readonly table: string
  readonly name: string
  readonly type: string | undefined
  readonly hook: number | undefined
  readonly priority: number | undefined
  readonly policy: number | undefined
  /** Its rules, plus the jumps that lead to it. */
  readonly use: number
  readonly comment: string | undefined
}

/** Asks for chains by name; undefined for those that are not there. @throws {NetlinkError} */
export function getChains(
  transport: Transport,
  chains: readonly Pick<Chain, 'table' | 'name'>[],
): (ChainState | undefined)[] {
  const requests = chains.map(chain =>
    message(
      NFT_MSG_GETCHAIN,
      chain.table.family,
      chainAttributes,
      { table: chain.table.name, name: chain.name },
      { verb: 'read', object: `chain ${formatChain(chain)}`, flags: NLM_F_ACK, tolerate: [ENOENT] },
    ),
  )
  return transport.execute(requests).map(reply => reply.messages.map(answer => decodeChain(answer.body))[0])
}

/** All chains of all families. @throws {NetlinkError} */
export function listChains(transport: Transport): ChainState[] {
  const dump = message(
    NFT_MSG_GETCHAIN,
    'any',
    chainAttributes,
    {},
    { verb: 'list', object: 'chains', flags: NLM_F_DUMP },
  )
  return transport.execute([dump])[0]!.messages.map(answer => decodeChain(answer.body))
}

function decodeChain(body: Uint8Array): ChainState {
  const { family, values } = decodeAnswer(body, chainAttributes)
  return {
    family: familyName(family),
    table: values.table ?? '',
    name: values.name ?? '',
    type: values.type,
    hook: values.hook?.number,
    priority: values.hook?.priority === undefined ? undefined : values.hook.priority | 0,
    policy: values.policy,
    use: values.use ?? 0,
    comment: decodeComment(values.userdata),
  }
}
