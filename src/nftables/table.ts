// SPDX-License-Identifier: Apache-2.0

import { attributes, bytes, NLM_F_CREATE, string, u32be, u64be } from '#netlink'
import { type Change, type Family, message, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE } from './message.ts'

// linux/netfilter/nf_tables.h, enum nft_table_attributes
const NFTA_TABLE_NAME = 1
const NFTA_TABLE_FLAGS = 2
const NFTA_TABLE_USE = 3
const NFTA_TABLE_HANDLE = 4
const NFTA_TABLE_USERDATA = 6

export const tableAttributes = attributes({
  name: [NFTA_TABLE_NAME, string()],
  flags: [NFTA_TABLE_FLAGS, u32be],
  use: [NFTA_TABLE_USE, u32be],
  handle: [NFTA_TABLE_HANDLE, u64be],
  userdata: [NFTA_TABLE_USERDATA, bytes],
})

/** A table: the owner of sets, chains and rules. */
export type Table = { readonly family: Family; readonly name: string }

export const formatTable = (table: Table): string => `${table.family} ${table.name}`

/** Makes the table if there is none. */
export function addTable(table: Table): Change {
  const values = { name: table.name, flags: 0 }
  return message(NFT_MSG_NEWTABLE, table.family, tableAttributes, values, {
    verb: 'add',
    object: `table ${formatTable(table)}`,
    flags: NLM_F_CREATE,
  })
}

/** Removes the table with everything in it. ENOENT where there is none. */
export function deleteTable(table: Table): Change {
  const options = { verb: 'delete', object: `table ${formatTable(table)}` }
  return message(NFT_MSG_DELTABLE, table.family, tableAttributes, { name: table.name }, options)
}
