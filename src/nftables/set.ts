// SPDX-License-Identifier: Apache-2.0

import { ENOENT } from '#libc'
import {
  attributes,
  bytes,
  type Infer,
  list,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  nested,
  string,
  type Transport,
  u32,
  u32be,
  u64be,
} from '#netlink'
import { type DataTypeName, dataTypes, sizeOf, typeId, typesOf } from './datatype.ts'
import { type Change, decodeAnswer, message, NFT_MSG_GETSET, NFT_MSG_NEWSET } from './message.ts'
import { formatTable, type Table } from './table.ts'
import { encodeUserdata } from './userdata.ts'

// linux/netfilter/nf_tables.h, enum nft_set_attributes, nft_set_desc_attributes, nft_set_flags
const NFTA_SET_TABLE = 1
const NFTA_SET_NAME = 2
const NFTA_SET_FLAGS = 3
const NFTA_SET_KEY_TYPE = 4
const NFTA_SET_KEY_LEN = 5
const NFTA_SET_DATA_TYPE = 6
const NFTA_SET_DATA_LEN = 7
const NFTA_SET_DESC = 9
const NFTA_SET_ID = 10
const NFTA_SET_USERDATA = 13
const NFTA_SET_HANDLE = 16
const NFTA_SET_DESC_SIZE = 1
const NFTA_SET_DESC_CONCAT = 2
const NFTA_LIST_ELEM = 1
const NFTA_SET_FIELD_LEN = 1
const NFT_SET_INTERVAL = 0x4
const NFT_SET_MAP = 0x8
const NFT_SET_CONCAT = 0x80
const NFT_DATA_VERDICT = 0xff_ff_ff_00

const field = nested(attributes({ bytes: [NFTA_SET_FIELD_LEN, u32be] }))

export const setAttributes = attributes({
  table: [NFTA_SET_TABLE, string()],
  name: [NFTA_SET_NAME, string()],
  flags: [NFTA_SET_FLAGS, u32be],
  keyType: [NFTA_SET_KEY_TYPE, u32be],
  keyBytes: [NFTA_SET_KEY_LEN, u32be],
  dataType: [NFTA_SET_DATA_TYPE, u32be],
  dataBytes: [NFTA_SET_DATA_LEN, u32be],
  id: [NFTA_SET_ID, u32be],
  description: [
    NFTA_SET_DESC,
    nested(
      attributes({
        size: [NFTA_SET_DESC_SIZE, u32be],
        fields: [NFTA_SET_DESC_CONCAT, nested(list(NFTA_LIST_ELEM, field))],
      }),
    ),
  ],
  userdata: [NFTA_SET_USERDATA, bytes],
  handle: [NFTA_SET_HANDLE, u64be],
})

/** A named set; with `data` a map, with `data: 'verdict'` a verdict map. */
export type NamedSet = {
  readonly table: Table
  readonly name: string
  /** One type, or the fields of a concatenation. */
  readonly key: readonly DataTypeName[]
  readonly data?: readonly DataTypeName[] | 'verdict'
  /** Elements may be ranges. Without it the set is a hash: adding and removing cost the same at any size. */
  readonly interval?: boolean
}

export const formatSet = (set: NamedSet): string =>
  `${set.data === undefined ? 'set' : 'map'} ${formatTable(set.table)} ${set.name}`

/** Makes the set. `exclusive`: EEXIST where it is there already, else that is success. */
export function addSet(set: NamedSet, options: { exclusive?: boolean } = {}): Change {
  const rangesOfFields = set.interval === true && set.key.length > 1
  const values = {
    table: set.table.name,
    name: set.name,
    flags:
      (set.interval ? NFT_SET_INTERVAL : 0) |
      (set.data === undefined ? 0 : NFT_SET_MAP) |
      (rangesOfFields ? NFT_SET_CONCAT : 0),
    keyType: typeId(set.key),
    keyBytes: sizeOf(set.key),
    ...dataOf(set),
    // Only a number within the batch, for rules that refer to anonymous sets; the kernel insists on it.
    id: 1,
    ...(rangesOfFields ? { description: { fields: set.key.map(name => ({ bytes: dataTypes[name].bytes })) } } : {}),
    userdata: userdataOf(set),
  }
  return message(NFT_MSG_NEWSET, set.table.family, setAttributes, values, {
    verb: 'add',
    object: formatSet(set),
    flags: NLM_F_CREATE | (options.exclusive ? NLM_F_EXCL : 0),
  })
}

function dataOf(set: NamedSet): { dataType?: number; dataBytes?: number } {
  if (set.data === undefined) return {}
  if (set.data === 'verdict') return { dataType: NFT_DATA_VERDICT, dataBytes: 0 }
  return { dataType: typeId(set.data), dataBytes: sizeOf(set.data) }
}

// libnftnl, udata.h, and nftables, enum byteorder: without these `nft list` prints host-order keys reversed.
const NFTNL_UDATA_SET_KEYBYTEORDER = 0
const NFTNL_UDATA_SET_DATABYTEORDER = 1
const NFTNL_UDATA_SET_DATA_INTERVAL = 6
const byteOrders = { none: 0, host: 1, network: 2 } as const

function userdataOf(set: NamedSet): Uint8Array {
  const entries: [number, Uint8Array][] = [[NFTNL_UDATA_SET_KEYBYTEORDER, u32.encode(byteOrderOf(set.key))]]
  if (set.data !== undefined) {
    const order = set.data === 'verdict' ? byteOrders.none : byteOrderOf(set.data)
    entries.push([NFTNL_UDATA_SET_DATABYTEORDER, u32.encode(order)])
    entries.push([NFTNL_UDATA_SET_DATA_INTERVAL, u32.encode(0)])
  }
  return encodeUserdata(entries)
}

const byteOrderOf = (types: readonly DataTypeName[]) =>
  types.length > 1 ? byteOrders.none : byteOrders[dataTypes[types[0]!].order]

/** The names of a table's sets and maps; none where there is no such table. @throws {NetlinkError} */
export const listSets = (transport: Transport, table: Table): string[] =>
  dumpSets(transport, table).map(({ name = '' }) => name)

/**
 * A table's sets and maps with what their elements look like, for reading; none where there is no such table. Left out are
 * those of ranges, of verdicts, and of types that `dataTypes` does not know. @throws {NetlinkError}
 */
export function readSets(transport: Transport, table: Table): NamedSet[] {
  return dumpSets(transport, table).flatMap(({ name = '', keyType = 0, dataType, flags = 0 }) => {
    const key = typesOf(keyType)
    const data = (flags & NFT_SET_MAP) === 0 ? undefined : typesOf(dataType ?? 0)
    if (key === undefined || (flags & NFT_SET_INTERVAL) !== 0) return []
    if (data === undefined) return (flags & NFT_SET_MAP) === 0 ? [{ table, name, key }] : []
    return [{ table, name, key, data }]
  })
}

function dumpSets(transport: Transport, table: Table): Infer<typeof setAttributes>[] {
  const dump = message(
    NFT_MSG_GETSET,
    table.family,
    setAttributes,
    { table: table.name },
    { verb: 'list', object: `sets of table ${formatTable(table)}`, flags: NLM_F_DUMP, tolerate: [ENOENT] },
  )
  return transport.execute([dump])[0]!.messages.map(answer => decodeAnswer(answer.body, setAttributes).values)
}
