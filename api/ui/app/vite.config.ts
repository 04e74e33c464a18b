import { defineConfig } from 'vite';

// VARVE_URL is the server that the development server and the preview hand the API's requests to.
const server = process.env.VARVE_URL ?? 'http://127.0.0.1:9095';
const proxy = { '/api': server, '/-': server, '/metrics': server };

export default defineConfig({
  // Every address in the page is relative, since it may be served below a prefix.
  base: './',
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: 'es2022',
    // The policy of the page allows neither data: URLs for styles nor inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        entryFileNames: 'assets/[name]-[hash].js',
        chunkFileNames: 'assets/[name]-[hash].js',
        assetFileNames: 'assets/[name]-[hash][extname]',
      },
    },
  },
  server: { proxy },
  preview: { proxy },
});
