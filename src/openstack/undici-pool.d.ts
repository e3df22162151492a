// SPDX-License-Identifier: Apache-2.0

// The one part of undici that we load at run time; its types are those of the package.
declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici'

  const pool: typeof Pool
  export default pool
}
