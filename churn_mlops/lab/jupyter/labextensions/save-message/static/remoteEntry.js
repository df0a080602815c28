// Show what the server says about a save, until the next save of the same file. JupyterLab itself passes over it.
const shown = new Map();

const plugin = {
  id: "save-message:plugin",
  autoStart: true,
  activate: ({ commands, serviceManager }) => {
    serviceManager.contents.fileChanged.connect(async (_, { type, newValue }) => {
      if (type !== "save") return;
      const { path, message } = newValue;
      if (shown.has(path)) await commands.execute("apputils:dismiss-notification", { id: shown.get(path) });
      shown.delete(path);
      if (!message) return;
      const options = { autoClose: false };
      shown.set(path, await commands.execute("apputils:notify", { message, type: "error", options }));
    });
  },
};

window._JUPYTERLAB ??= {};
window._JUPYTERLAB["save-message"] = { init: () => {}, get: async () => () => ({ __esModule: true, default: plugin }) };
